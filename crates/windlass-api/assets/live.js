// Keeps a page live: lays each body the server sends over the one that is shown.
"use strict";
const main = document.getElementById("content");
const sign = document.getElementById("live");
const from = main.dataset.live;
if (from) {
  const say = (word, title) => { sign.textContent = word; sign.className = "sign " + word; sign.title = title; };
  const lay = (event) => Idiomorph.morph(main, event.data, {
    morphStyle: "innerHTML",
    ignoreActiveValue: true,
    // What somebody has chosen stays chosen.
    callbacks: { beforeAttributeUpdated: (name, node) => !(name === "checked" || (name === "open" && node.tagName === "DETAILS")) },
  });
  let stream, done = false;
  const open = () => {
    stream = new EventSource(from);
    stream.addEventListener("open", () => say("live", "This page follows what happens"));
    stream.addEventListener("page", lay);
    stream.addEventListener("done", (event) => { lay(event); done = true; stream.close(); say("", ""); });
    stream.addEventListener("error", () => {
      say("stale", "The connection is lost; trying again");
      // A refused stream is not tried again by the browser.
      if (stream.readyState === EventSource.CLOSED && !document.hidden) setTimeout(open, 5000);
    });
  };
  // A hidden page needs no stream; one that is shown again is brought up to date at once.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stream.close();
    else if (!done && stream.readyState === EventSource.CLOSED) open();
  });
  open();
}
