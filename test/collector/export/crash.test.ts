import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { batch, hello, type Plain } from '../ingest-support.js';
import { spawnCollector } from '../process-support.js';
import { Clients } from '../rpc-support.js';

const KILLS = process.env['TEST_LONG'] === '1' ? 20 : 5;
const ROWS = 20;

/** How long one is left to live at most, ms: a prime, so that kills fall everywhere between writes. */
const LIFE_MS = 1009;

describe('files of events', function () {
  this.timeout(20_000 + KILLS * 5000);

  it(`hold everything that was said to be in them after kill -9, ${KILLS} times`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'meshpulse-crash-'));
    const delivered: number[] = [];
    let seq = 0;
    try {
      for (let kill = 0; kill < KILLS; kill++) {
        const child = await spawnCollector(['--export', `jsonl=${folder}`]);
        const clients = new Clients(child.grpc);
        let said = 0;
        try {
          const stream = clients.report();
          await stream.ask({ hello: hello({ producers: [{ id: '11', nextSeq: String(seq + 1) }] }) });
          // Sending goes on until the end, so that it comes in the middle of a write as well.
          void (async () => {
            for (; child.process.exitCode === null && !child.process.killed;) {
              await stream.ask({ batches: [batch(++seq, Array<object>(ROWS).fill({}))] });
            }
          })();
          const endMs = performance.now() + LIFE_MS * ((kill + 1) / KILLS) + 300;
          while (performance.now() < endMs) said = (await deliveredOf(child.http)) ?? said;
        } finally {
          child.process.kill('SIGKILL');
          await child.exited;
          clients.close();
        }
        delivered.push(said);
      }
      const last = await spawnCollector(['--export', `jsonl=${folder}`]);
      last.process.kill('SIGTERM');
      await last.exited;
      const names = readdirSync(folder);
      assert.ok(
        names.every(name => name.endsWith('.jsonl.gz')),
        `unfinished: ${names.join(' ')}`,
      );
      const ids = names.flatMap(name => {
        const lines = gunzipSync(readFileSync(join(folder, name)))
          .toString()
          .trimEnd()
          .split('\n');
        return lines.map(line => (JSON.parse(line) as Plain)['id'] as string);
      });
      const promised = delivered.reduce((sum, count) => sum + count, 0);
      assert.equal(new Set(ids).size, ids.length, 'no row twice');
      assert.ok(ids.length >= promised && promised > 0, `${ids.length} rows, ${promised} were said to be there`);
      console.log(`      ${ids.length} rows in ${names.length} files, ${promised} were said to be there`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

async function deliveredOf(http: string): Promise<number | undefined> {
  const text = await (await fetch(`http://${http}/metrics`)).text();
  const match = /^meshpulse_export_records_total\{sink="jsonl",result="delivered"\} (\d+)$/m.exec(text);
  return match === null ? undefined : Number(match[1]);
}
