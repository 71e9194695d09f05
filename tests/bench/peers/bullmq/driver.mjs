// Drives BullMQ for Node: defaults, so finished jobs are kept. See ../driver.rs for the protocol.

import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue, Worker } from 'bullmq';

const number = (name) => {
  const value = Number(process.env[name]);
  if (!Number.isInteger(value)) throw new Error(`${name} is not a number: ${process.env[name]}`);
  return value;
};
const order = {
  connection: { host: '127.0.0.1', port: number('BENCH_PORT'), maxRetriesPerRequest: null },
  jobs: number('BENCH_JOBS'),
  one: number('BENCH_ONE'),
  samples: number('BENCH_SAMPLES'),
  slots: number('BENCH_SLOTS'),
};
// Jobs in one addBulk, which is one MULTI, and how many of them are under way at once.
const SLICE = 250;
const IN_FLIGHT = 4;
const PATIENCE_S = 300;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const at = async (place) => {
  say({ at: place });
  await answers.next();
};
const secondsSince = (start) => (performance.now() - start) / 1000;
const must = (fine, what) => {
  if (!fine) throw new Error(what);
};

// {"i":…,"padding":"…"} of exactly 100 bytes.
const args = (i) => ({ i, padding: 'x'.repeat(100 - '{"i":,"padding":""}'.length - String(i).length) });
const open = (name) => new Queue(name, { connection: order.connection });
const worker = (name, handler) =>
  new Worker(name, handler, { connection: order.connection, concurrency: order.slots, autorun: false });

async function oneByOne() {
  const queue = open('one');
  await queue.waitUntilReady();
  const start = performance.now();
  for (let i = 0; i < order.one; i += 1) await queue.add('noop', args(i));
  const took = secondsSince(start);
  must((await queue.getWaitingCount()) === order.one, 'jobs are missing');
  await queue.close();
  return took;
}

async function bulk(queue) {
  const slices = [];
  for (let i = 0; i < order.jobs; i += SLICE) {
    const size = Math.min(SLICE, order.jobs - i);
    slices.push(Array.from({ length: size }, (_, k) => ({ name: 'noop', data: args(i + k) })));
  }
  const produce = async () => {
    for (let slice = slices.pop(); slice; slice = slices.pop()) await queue.addBulk(slice);
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: IN_FLIGHT }, produce));
  const took = secondsSince(start);
  must((await queue.getWaitingCount()) === order.jobs, 'jobs are missing');
  return took;
}

async function drain(queue) {
  const runs = new Uint32Array(order.jobs);
  const drainer = worker('bulk', async (job) => {
    runs[job.data.i] += 1;
  });
  await drainer.waitUntilReady();
  const start = performance.now();
  const run = drainer.run();
  while ((await queue.getCompletedCount()) < order.jobs) {
    must(secondsSince(start) < PATIENCE_S, 'the drain did not end');
    await sleep(10);
  }
  const took = secondsSince(start);
  await drainer.close();
  await run;
  const counts = await queue.getJobCounts('waiting', 'active', 'failed', 'completed');
  must(counts.waiting + counts.active + counts.failed === 0, `jobs were left: ${JSON.stringify(counts)}`);
  return { took, finished: counts.completed, ranOnce: runs.filter((n) => n === 1).length };
}

async function latency() {
  const queue = open('idle');
  await queue.waitUntilReady();
  let started;
  const idle = worker('idle', async () => started(performance.now()));
  await idle.waitUntilReady();
  const run = idle.run();
  const samples = [];
  for (let sample = 0; sample < order.samples + 20; sample += 1) {
    const begun = new Promise((resolve) => {
      started = resolve;
    });
    await sleep(3);
    const start = performance.now();
    await queue.add('noop', args(sample));
    const took = (await begun) - start;
    if (sample >= 20) samples.push(Math.round(took * 1000));
  }
  await idle.close();
  await run;
  await queue.close();
  return samples;
}

const one = await oneByOne();
const queue = open('bulk');
await queue.waitUntilReady();
await at('empty');
const filled = await bulk(queue);
await at('full');
const drained = await drain(queue);
await queue.close();
say({
  figures: {
    one: [order.one, one],
    bulk: [order.jobs, filled],
    drain: [order.jobs, drained.took],
    latency_us: await latency(),
    ran_once: drained.ranOnce,
    finished: drained.finished,
  },
});
process.exit(0);
