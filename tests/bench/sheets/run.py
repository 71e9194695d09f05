#!/usr/bin/env python3
"""Card sheets the way Silhouette Card Maker 1.0 makes them, and by Windlass, beside each other: time,
memory, size, and how many pixels of the rendered pages differ.

    cargo build --release -p windlass
    python3 -m venv venv && venv/bin/pip install pillow numpy
    venv/bin/python tests/bench/sheets/run.py

The peer's own way, with Pillow as it uses it: every page is a full-page RGB picture with the marks on
it; each card is turned, scaled (bicubic), pasted, and its outermost rows and columns are pasted again
and again around it; all pages are held and saved as JPEGs of quality 75, 4:4:4. 64 cards of 750 × 1050
and a common back on letter, 16 pages. Needs pdftoppm (poppler-utils). Each contender runs in a process
of its own, in turn, three times; medians are printed.
"""
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
from PIL import Image

PAGE, CARD = (3300, 2550), (742, 1036)
COLUMNS, ROWS = [141, 900, 1658, 2417], [232, 1282]
BLEED = (9, 7)
MARKS = [(112, 112, 72, 72), (3092, 112, 97, 12), (3177, 112, 12, 97), (112, 2342, 12, 97), (112, 2427, 97, 12)]
WINDLASS = os.path.abspath("target/release/windlass")
ROUNDS = 3


def background():
    page = Image.new("RGB", PAGE, "white")
    for x, y, width, height in MARKS:
        page.paste((0, 0, 0), (x, y, x + width, y + height))
    return page


def bleed(page, card, x, y):
    width, height = card.size
    top, bottom = card.crop((0, 0, width, 1)), card.crop((0, height - 1, width, height))
    left, right = card.crop((0, 0, 1, height)), card.crop((width - 1, 0, width, height))
    for step in range(BLEED[1]):
        page.paste(top, (x, y - 1 - step))
        page.paste(bottom, (x, y + height + step))
    for step in range(BLEED[0]):
        page.paste(left, (x - 1 - step, y))
        page.paste(right, (x + width + step, y))
    for cx, px in ((0, x - BLEED[0]), (width - 1, x + width)):
        for cy, py in ((0, y - BLEED[1]), (height - 1, y + height)):
            page.paste(card.getpixel((cx, cy)), (px, py, px + BLEED[0], py + BLEED[1]))


def lay(cards, is_back):
    page = background()
    for number, card in enumerate(cards):
        row, column = divmod(number, len(COLUMNS))
        if is_back:
            row, card = len(ROWS) - 1 - row, card.rotate(180)
        card = card.resize(CARD)
        page.paste(card, (COLUMNS[column], ROWS[row]))
        bleed(page, card, COLUMNS[column], ROWS[row])
    return page


def peer(folder, out):
    names = sorted(os.listdir(f"{folder}/front"))
    back = lay([Image.open(f"{folder}/back/back.jpg")] * 8, True)
    pages = []
    for start in range(0, len(names), 8):
        fronts = [Image.open(f"{folder}/front/{name}") for name in names[start : start + 8]]
        pages += [lay(fronts, False), back]
    pages[0].save(out, format="PDF", save_all=True, append_images=pages[1:], resolution=300, subsampling=0, quality=75)


def pictures(folder):
    """Noise at every scale, coarse ones stronger: about the spectrum of a photograph."""
    random = numpy.random.default_rng(7)
    os.makedirs(f"{folder}/front"), os.makedirs(f"{folder}/back")
    for number in range(65):
        total = numpy.full((1050, 750, 3), 128.0)
        for divisor, strength in ((150, 200), (50, 90), (16, 45), (5, 24), (2, 12)):
            small = random.integers(0, 256, (-(-1050 // divisor), -(-750 // divisor), 3), dtype=numpy.uint8)
            large = Image.fromarray(small).resize((750, 1050), Image.Resampling.BILINEAR)
            total += (numpy.asarray(large, dtype=float) - 128) / 255 * strength
        card = Image.fromarray(total.clip(0, 255).astype(numpy.uint8))
        card.save(f"{folder}/back/back.jpg" if number == 64 else f"{folder}/front/{number:02}.jpg", quality=90)


def run(words):
    """Wall and processor time in seconds and peak MiB of a process and its children."""
    report = "import json,os,resource,subprocess,sys,time\nb=time.time()\nsubprocess.run(sys.argv[1:],check=True," \
             "stdout=subprocess.DEVNULL)\nu=resource.getrusage(resource.RUSAGE_CHILDREN)\n" \
             "print(json.dumps([time.time()-b,u.ru_utime+u.ru_stime,u.ru_maxrss/1024]))"
    ran = subprocess.run([sys.executable, "-c", report, *words], check=True, capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


def rendered(pdf):
    root = f"{pdf}-page"
    subprocess.run(["pdftoppm", "-r", "300", pdf, root], check=True)
    names = sorted(name for name in os.listdir(os.path.dirname(pdf)) if name.startswith(os.path.basename(root)))
    return [f"{os.path.dirname(pdf)}/{name}" for name in names]


def differing(ours, theirs):
    """The worst page: percent of pixels off by more than 40, and the shift of at most 1 at which least differ."""
    worst, moved = 0.0, 0
    for one, other in zip(rendered(ours), rendered(theirs), strict=True):
        a, b = (numpy.asarray(Image.open(name), dtype=numpy.int16) for name in (one, other))
        off = lambda dx, dy: (abs(a[1:-1, 1:-1] - b[1 + dy : b.shape[0] - 1 + dy, 1 + dx : b.shape[1] - 1 + dx]) > 40).any(axis=2).mean()
        shifts = {(dx, dy): off(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
        worst = max(worst, shifts[0, 0])
        moved += min(shifts, key=shifts.get) != (0, 0)
        os.remove(one), os.remove(other)
    return worst * 100, moved


def main():
    if sys.argv[1:2] == ["--peer"]:
        return peer(*sys.argv[2:4])
    with tempfile.TemporaryDirectory() as folder:
        pictures(folder)
        windlass = [WINDLASS, "pdf", "card-sheet", "--fronts", f"{folder}/front", "--backs", f"{folder}/back"]
        contenders = {
            "peer's way": [sys.executable, __file__, "--peer", folder],
            "raster": [*windlass, "--ppi", "300", "-o"],
            "embed": [*windlass, "-o"],
        }
        times = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, words in contenders.items():
                out = f"{folder}/{name.split()[0]}.pdf"
                # A directory of its own each time, so that no sheet is one that was made before.
                more = [] if name == "peer's way" else ["--data-dir", tempfile.mkdtemp(dir=folder)]
                times[name].append(run([*words, out, *more]))
        for name in contenders:
            out = f"{folder}/{name.split()[0]}.pdf"
            wall, cpu, peak = (statistics.median(column) for column in zip(*times[name]))
            line = f"{name:11} wall {wall:5.2f} s  cpu {cpu:5.2f} s  {peak:6.1f} MiB  file {os.path.getsize(out) / 2**20:5.2f} MiB"
            if name != "peer's way":
                worst, moved = differing(out, f"{folder}/peer's.pdf")
                line += f"  at most {worst:.2f} % of a page's pixels differ by > 40, {moved} of 16 pages moved"
            print(line, flush=True)


main()
