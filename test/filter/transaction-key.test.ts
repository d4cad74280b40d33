/** Which business request is this: the key that the filter reads out of each trace header. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import type { Pair } from '../support/proxy-wasm-host.js';
import { RUNS } from './counts.js';
import { assertAlive, REQUEST_ID, Sidecar, TRACE_ID, TRACEPARENT } from './sidecar.js';
import { KeySource, type Row } from './wire.js';

const SPAN = '00f067aa0ba902b7';
const NO_KEY = '0'.repeat(32);
const sha = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex').slice(0, 32);
const plain = (uuid: string): string => uuid.replaceAll('-', '');

describe('the transaction key', function () {
  this.timeout(900_000);

  function rowsFor(sets: readonly (readonly Pair[])[], config = {}): Row[] {
    const sidecar = new Sidecar({ config });
    sidecar.connect();
    for (const [i, headers] of sets.entries()) {
      sidecar.serve({ headers });
      if (i % 200 === 199) sidecar.advance(250);
    }
    sidecar.advance(3000);
    assertAlive(sidecar);
    const rows = sidecar.collector.rows();
    assert.equal(rows.length, sets.length);
    return rows;
  }

  const rowFor = (...headers: Pair[]): Row => rowsFor([headers])[0] as Row;

  const VALID: readonly (readonly [string, Pair[], string, number, string])[] = [
    ['traceparent', [['traceparent', TRACEPARENT]], TRACE_ID, KeySource.Traceparent, SPAN],
    [
      'traceparent, not sampled',
      [['traceparent', TRACEPARENT.replace(/01$/, '00')]],
      TRACE_ID,
      KeySource.Traceparent,
      SPAN,
    ],
    [
      'traceparent of a later version',
      [['traceparent', `cc-${TRACE_ID}-${SPAN}-01-what`]],
      TRACE_ID,
      KeySource.Traceparent,
      SPAN,
    ],
    ['b3 with 128 bits', [['b3', `${TRACE_ID}-${SPAN}-1-05e3ac9a4f6e3b90`]], TRACE_ID, KeySource.B3, SPAN],
    ['b3 with 64 bits', [['b3', `a3ce929d0e0e4736-${SPAN}`]], '0000000000000000a3ce929d0e0e4736', KeySource.B3, SPAN],
    [
      'x-b3-traceid',
      [
        ['x-b3-traceid', TRACE_ID],
        ['x-b3-spanid', SPAN],
      ],
      TRACE_ID,
      KeySource.XB3,
      SPAN,
    ],
    ['x-b3-traceid, upper case', [['x-b3-traceid', TRACE_ID.toUpperCase()]], TRACE_ID, KeySource.XB3, '0'.repeat(16)],
    ['uber-trace-id', [['uber-trace-id', `${TRACE_ID}:${SPAN}:0:1`]], TRACE_ID, KeySource.Uber, SPAN],
    [
      'uber-trace-id, short',
      [['uber-trace-id', 'abc:1:0:1']],
      '00000000000000000000000000000abc',
      KeySource.Uber,
      '0000000000000001',
    ],
    ['uber-trace-id, escaped', [['uber-trace-id', `${TRACE_ID}%3A${SPAN}%3A0%3A1`]], TRACE_ID, KeySource.Uber, SPAN],
    ['sw8', [['sw8', '1-TRACEID-SEGMENT-3-PARENT']], sha('TRACEID'), KeySource.Sw8, '0'.repeat(16)],
    [
      'x-cloud-trace-context',
      [['x-cloud-trace-context', `${TRACE_ID}/67667974448284343;o=1`]],
      TRACE_ID,
      KeySource.CloudTrace,
      SPAN,
    ],
    [
      'x-cloud-trace-context, bare',
      [['x-cloud-trace-context', TRACE_ID]],
      TRACE_ID,
      KeySource.CloudTrace,
      '0'.repeat(16),
    ],
    [
      'x-datadog-trace-id',
      [['x-datadog-trace-id', '18446744073709551615']],
      '0000000000000000ffffffffffffffff',
      KeySource.Datadog,
      '0'.repeat(16),
    ],
    ['x-request-id, a UUID', [['x-request-id', REQUEST_ID]], plain(REQUEST_ID), KeySource.RequestId, '0'.repeat(16)],
    ['x-request-id, another text', [['x-request-id', 'job-17']], sha('job-17'), KeySource.RequestId, '0'.repeat(16)],
    ['nothing', [], NO_KEY, KeySource.None, '0'.repeat(16)],
  ];
  for (const [name, headers, key, source, span] of VALID) {
    it(`reads ${name}`, () => {
      const row = rowFor(...headers);
      assert.deepEqual({ key: row.key, source: row.keySource, span: row.spanIn }, { key, source, span });
    });
  }

  it('carries the x-request-id beside the key', () => {
    assert.equal(rowFor(['traceparent', TRACEPARENT], ['x-request-id', REQUEST_ID]).requestId, plain(REQUEST_ID));
  });

  it('takes the first valid header in the order of the contract, wherever it stands', () => {
    const all: Pair[] = [
      ['x-datadog-trace-id', '1'],
      ['x-cloud-trace-context', '2'.repeat(32)],
      ['sw8', '1-x-y-3'],
      ['uber-trace-id', '3:1:0:1'],
      ['x-b3-traceid', '4'.repeat(32)],
      ['b3', `${'5'.repeat(32)}-${SPAN}`],
      ['traceparent', TRACEPARENT],
      ['x-order', 'order-9'],
    ];
    const sources: number[] = [];
    for (let n = all.length; n > 0; n--) {
      sources.push(rowsFor([all.slice(0, n)], { transaction: { header: 'x-order' } })[0]?.keySource ?? -1);
    }
    assert.deepEqual(sources, [1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it('hashes transaction.header, and adds the plain text only with report.plainIds', () => {
    const headers: Pair[] = [['X-Order', 'order-9']];
    const transaction = { header: 'X-Order' };
    const hashed = rowsFor([headers], { transaction })[0];
    const both = rowsFor([headers], { transaction, report: { plainIds: true } })[0];
    assert.deepEqual([hashed?.key, hashed?.keyText], [sha('order-9'), '']);
    assert.deepEqual([both?.key, both?.keyText], [sha('order-9'), 'order-9']);
  });

  const INVALID: readonly (readonly [string, Pair])[] = [
    ['version ff', ['traceparent', `ff-${TRACE_ID}-${SPAN}-01`]],
    ['a zero trace id', ['traceparent', `00-${'0'.repeat(32)}-${SPAN}-01`]],
    ['a zero parent id', ['traceparent', `00-${TRACE_ID}-${'0'.repeat(16)}-01`]],
    ['upper case', ['traceparent', TRACEPARENT.toUpperCase()]],
    ['one digit less', ['traceparent', TRACEPARENT.slice(0, -1)]],
    ['one digit more', ['traceparent', `${TRACEPARENT}0`]],
    ['something behind version 00', ['traceparent', `${TRACEPARENT}-x`]],
    ['a blank in front', ['traceparent', ` ${TRACEPARENT}`]],
    ['a letter that is no hex digit', ['traceparent', TRACEPARENT.replace('4bf9', '4bg9')]],
    ['nothing', ['traceparent', '']],
    ['a sampling decision alone', ['b3', '1']],
    ['b3 without span', ['b3', TRACE_ID]],
    ['b3 of 31 digits', ['b3', `${TRACE_ID.slice(1)}-${SPAN}`]],
    ['b3 of zeros', ['b3', `${NO_KEY}-${SPAN}`]],
    ['x-b3 of 17 digits', ['x-b3-traceid', '1'.repeat(17)]],
    ['x-b3 of zeros', ['x-b3-traceid', NO_KEY]],
    ['uber of 33 digits', ['uber-trace-id', `${'1'.repeat(33)}:1:0:1`]],
    ['uber of zeros', ['uber-trace-id', '0:0:0:0']],
    ['uber without colons', ['uber-trace-id', TRACE_ID]],
    ['sw8 without trace', ['sw8', '1-']],
    ['cloud trace of 31 digits', ['x-cloud-trace-context', `${TRACE_ID.slice(1)}/1`]],
    ['a Datadog id of zero', ['x-datadog-trace-id', '0']],
    ['a Datadog id past 64 bits', ['x-datadog-trace-id', '18446744073709551616']],
    ['a Datadog id in hex', ['x-datadog-trace-id', 'ff']],
  ];
  for (const [name, header] of INVALID) {
    it(`takes ${header[0]} with ${name} for none`, () => {
      const row = rowFor(header, ['x-request-id', REQUEST_ID]);
      assert.deepEqual([row.keySource, row.key], [KeySource.RequestId, plain(REQUEST_ID)]);
    });
  }

  it('takes repeated traceparents for none: nobody can say which one is meant', () => {
    const other = TRACEPARENT.replace('4bf9', '5bf9');
    const row = rowFor(['traceparent', TRACEPARENT], ['traceparent', other], ['x-request-id', REQUEST_ID]);
    assert.equal(row.keySource, KeySource.RequestId);
  });

  it(`never takes an invalid traceparent for a key, nor misses a valid one (${String(RUNS.traceparents)} values)`, () => {
    const hex = (n: number) => fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: n, maxLength: n });
    const valid = fc
      .tuple(hex(2), hex(32), hex(16), hex(2))
      .map(([version, trace, span, flags]) => `${version}-${trace}-${span}-${flags}`);
    const broken = fc
      .tuple(valid, fc.nat({ max: 54 }), fc.integer({ min: 1, max: 255 }))
      .map(([text, at, byte]) => text.slice(0, at) + String.fromCharCode(byte) + text.slice(at + 1));
    const longer = fc.tuple(valid, fc.string({ maxLength: 12 })).map(([text, tail]) => text + tail);
    const shorter = fc.tuple(valid, fc.nat({ max: 55 })).map(([text, n]) => text.slice(0, n));
    const any = fc.oneof(valid, broken, longer, shorter, fc.string({ unit: 'binary-ascii', maxLength: 70 }));
    const values = fc.sample(any, { numRuns: RUNS.traceparents, seed: 8 });
    const reference = (value: string): string => {
      const match = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$/s.exec(value);
      if (match === null || match[1] === 'ff' || (match[1] === '00' && match[4] !== undefined)) return '';
      return /^0+$/.test(match[2] ?? '') || /^0+$/.test(match[3] ?? '') ? '' : (match[2] ?? '');
    };
    const rows = rowsFor(values.map(value => [['traceparent', value]]));
    for (const [i, value] of values.entries()) {
      const row = rows[i];
      const expected = reference(value);
      const actual = row?.keySource === KeySource.Traceparent ? row.key : '';
      assert.equal(actual, expected, JSON.stringify(value));
    }
  });
});
