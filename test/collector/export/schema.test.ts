import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { LineEncoder } from '../../../collector/src/export/lines.js';
import { OtlpEncoder } from '../../../collector/src/export/otlp.js';
import { PROTOS } from '../../../collector/src/paths.js';
import { EXPORT_FIELDS } from '../../../scripts/export-fields.js';
import { schemaPage } from '../../../scripts/schema.js';
import { columns, OTHER_CUID, type Plain } from '../ingest-support.js';
import { BASE_US, decodeOtlp, frameOf, ORIGIN } from './support.js';
import { rowsOf, type Rows } from '../../../collector/src/export/batches.js';

/** Two rows that together have everything: an entry with a stream's bytes, and a call. */
function everything(): Rows {
  const rows = [{ operation: 'GET /' }, { operation: 'GET /', peerService: 'p', peerCuid: OTHER_CUID, flags: 1 }];
  const made = columns(rows, BASE_US);
  const strings = [...(made['strings'] as string[]), 'x'];
  const [entry, call] = [(2 | 4 | (1 << 16) | (2 << 20)) >>> 0, (1 | (2 << 16) | (2 << 20) | (2 << 24)) >>> 0];
  const both = (value: unknown): unknown[] => [value, value];
  const events: Plain = {
    ...made,
    strings,
    ...Object.fromEntries(['requestHi', 'requestLo', 'spanIn', 'spanOut'].map(name => [name, both('7')])),
    ...Object.fromEntries(
      ['waitUs', 'requestBytes', 'responseBytes', 'weight', 'responseFlags'].map(name => [name, both(3)]),
    ),
    status: both(200 | (1 << 16)),
    flags: [entry, call],
    keyText: both(strings.length - 1),
    details: both(strings.length - 1),
  };
  return rowsOf(frameOf(events, 1, { ...ORIGIN, network: 'n' }))!;
}

const linesOf = (rows: Rows): string => new LineEncoder().lines(rows).toString();

describe('docs/schema.md', () => {
  it('is what the protos and the exporters say now; if not: make schema', () => {
    const page = readFileSync(join(dirname(PROTOS), 'docs', 'schema.md'), 'utf8');
    assert.equal(page, schemaPage());
  });

  it('has a heading for every message, enum and service, and a sentence of every message that has one', () => {
    const page = schemaPage();
    for (const name of ['message Hello', 'enum RowFlag', 'service Ingest', 'message EventColumns', 'message Verdict']) {
      assert.ok(page.includes(`\n### ${name}\n`), name);
    }
    assert.match(
      page,
      /\| `key_hi` \| 6 \| repeated fixed64 \| {2}\| Transaction key, 16 bytes as two big-endian halves/,
    );
    assert.match(page, /\| `duration_us` \| 5 \| repeated fixed32 \| us \| From request headers to end/);
    assert.match(
      page,
      /\| `Report` \| stream `ReportRequest` \| stream `ReportReply` \| The first message must carry `hello`/,
    );
    assert.match(page, /\| `acked_seq` \| 5 \| optional uint64 \|/);
  });

  it('names every field of a JSON line, and no other', () => {
    const lines = linesOf(everything()).trimEnd().split('\n');
    const sent = new Set(lines.flatMap(line => Object.keys(JSON.parse(line) as Plain)));
    const named = EXPORT_FIELDS.map(({ line }) => line).filter(line => line !== '');
    assert.deepEqual([...sent].sort(), named.sort());
  });

  it('names every attribute of an OTLP log record, and no other', () => {
    const [logs] = decodeOtlp(new OtlpEncoder('1').request([everything()]));
    const sent = new Set([
      ...Object.keys(logs!.resource),
      ...logs!.records.flatMap(({ attributes }) => Object.keys(attributes)),
    ]);
    const named = EXPORT_FIELDS.flatMap(({ otlp }) => [...otlp.matchAll(/`([^`]+)`/g)].map(([, name]) => name!));
    assert.deepEqual([...sent].sort(), named.sort());
    const [record] = logs!.records;
    for (const name of ['traceId', 'spanId', 'body', 'eventName', 'timeUnixNano', 'observedTimeUnixNano'] as const) {
      assert.notEqual(record![name], undefined, name);
    }
  });
});
