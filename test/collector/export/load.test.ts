import assert from 'node:assert/strict';
import { batch, columns, hello, type Plain } from '../ingest-support.js';
import { percentile, spawnCollector, usageOf } from '../process-support.js';
import { Clients, until } from '../rpc-support.js';
import { Sink } from './support.js';

const LONG = process.env['TEST_LONG'] === '1';

const ROWS_PER_SECOND = 10_000;
const ROWS = 200;
const SECONDS = LONG ? 600 : 5;
const QUEUE_MIB = LONG ? 16 : 1;

/** Of the process: the collector, its thread, the queues of three sinks, and loads under way. */
const RSS_MIB_MAX = LONG ? 1280 : 400;

/** A slow sink answers so often, ms. */
const SLOW_MS = 10_000;
const RECOVERY_MS_MAX = 10_000;

describe('sinks that are slow, dead, or hang', function () {
  this.timeout(60_000 + SECONDS * 2000);

  it(`cost neither ingest nor more memory than their queues, and are served again within 10 s`, async () => {
    let healthy = false;
    const slow = new Sink(response => void setTimeout(() => response.end(), healthy ? 0 : SLOW_MS).unref());
    const dead = new Sink();
    const hanging = new Sink(response => void (healthy ? response.end() : undefined));
    const urls = [await slow.listen(), await dead.listen(), await hanging.listen()];
    dead.close();
    const queue = ['--export-queue-bytes-max', `${QUEUE_MIB}MiB`];
    const child = await spawnCollector([...urls.flatMap(url => ['--export', `otlp=${url}`]), ...queue]);
    const clients = new Clients(child.grpc);
    const revived = new Sink();
    try {
      const stream = clients.report();
      await stream.ask({ hello: hello() });
      const events = columns(Array<object>(ROWS).fill({}), Date.now() * 1000);
      const tookMs: number[] = [];
      const beganMs = performance.now();
      let seq = 0;
      const send = async (): Promise<void> => {
        const atMs = performance.now();
        seq += 1;
        const { acks } = await stream.ask({
          batches: [batch(seq, [], { firstEvent: String((seq - 1) * ROWS), events: own(events, seq) })],
        });
        assert.equal((acks as Plain[])[0]!['seq'], String(seq));
        tookMs.push(performance.now() - atMs);
      };
      while (seq < (SECONDS * ROWS_PER_SECOND) / ROWS) {
        await send();
        const early = beganMs + (seq * ROWS * 1000) / ROWS_PER_SECOND - performance.now();
        if (early > 0) await new Promise(resolve => setTimeout(resolve, early));
      }
      const sent = seq * ROWS;
      const after = usageOf(child.process.pid!);
      const seconds = (performance.now() - beganMs) / 1000;
      const sums = await until('every row in a sum', async () => {
        const all = await sumsOf(child.http);
        return all.every(({ delivered, dropped, waiting }) => delivered + dropped + waiting === sent) ? all : undefined;
      });
      console.log(
        `      ${Math.round(sent / seconds)} rows/s, acknowledged p99 ${percentile(tookMs, 0.99).toFixed(1)} ms, ` +
          `${(after.cpuSeconds / seconds).toFixed(2)} cores, ${Math.round(after.rssMib)} MiB; ` +
          sums.map(({ delivered, dropped }) => `${delivered} delivered ${dropped} dropped`).join(', '),
      );
      assert.ok(after.rssMib <= RSS_MIB_MAX, `${after.rssMib} MiB`);
      assert.ok(sums.every(({ dropped }) => dropped > 0));
      assert.equal(sums[1]!.delivered, 0);

      healthy = true;
      await revived.listen(Number(new URL(urls[1]!).port));
      const healthyMs = performance.now();
      for (const at of [0, 1]) {
        await inTime('served again', async () => (await sumsOf(child.http))[at]!.delivered > sums[at]!.delivered);
      }
      const recoveryMs = performance.now() - healthyMs;
      assert.ok(recoveryMs <= RECOVERY_MS_MAX, `${recoveryMs} ms`);
      // A request that hangs is given up at its deadline; what waits behind it goes then.
      await inTime('hanging no more', async () => (await sumsOf(child.http))[2]!.delivered > 0);
      await inTime('queues are empty', async () => (await sumsOf(child.http)).every(({ waiting }) => waiting === 0));
      const end = await sumsOf(child.http);
      assert.deepEqual(
        end.map(({ delivered, dropped }) => delivered + dropped),
        [sent, sent, sent],
      );
      const { services } = (await clients.call('Registry.ListServices', {})) as { services: Plain[] };
      assert.equal(services[0]!['events'], String(sent));
    } finally {
      clients.close();
      child.process.kill('SIGKILL');
      await child.exited;
      for (const sink of [slow, dead, hanging, revived]) sink.close();
    }
  });
});

/** Ids that no other batch has. */
function own(events: Plain, seq: number): Plain {
  const ids = Array.from({ length: ROWS }, (_, i) => String(seq * 1000 + i + 1));
  return { ...events, keyHi: ids, keyLo: ids, eventId: ids };
}

interface Sums {
  readonly delivered: number;
  readonly dropped: number;
  readonly waiting: number;
}

async function sumsOf(http: string): Promise<Sums[]> {
  const text = await (await fetch(`http://${http}/metrics`)).text();
  const value = (series: string): number =>
    Number(
      text
        .split('\n')
        .find(line => line.startsWith(`${series} `))
        ?.split(' ')[1],
    );
  return ['otlp', 'otlp-2', 'otlp-3'].map(sink => ({
    delivered: value(`meshpulse_export_records_total{sink="${sink}",result="delivered"}`),
    dropped: value(`meshpulse_export_records_total{sink="${sink}",result="dropped"}`),
    waiting: value(`meshpulse_export_waiting_records{sink="${sink}"}`),
  }));
}

/** Longer than `until`: backoff and deadlines take their time. */
async function inTime(what: string, probe: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + 40_000;
  while (!(await probe())) {
    if (performance.now() > endMs) throw new Error(`not within 40 s: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 100));
  }
}
