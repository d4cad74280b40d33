import assert from 'node:assert/strict';
import fc from 'fast-check';
import { hex64, type EventColumns } from '../../collector/src/ingest/columns.js';
import { decodeReport } from '../../collector/src/ingest/decode-report.js';
import { WireError } from '../../collector/src/ingest/wire.js';
import { batch, columns, CUID, encodeReport, hello, type Plain } from './ingest-support.js';

const U32 = fc.nat({ max: 0xffffffff });
const U64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const WORDS = [
  'endOffsetUs',
  'durationUs',
  'status',
  'responseFlags',
  'flags',
  'waitUs',
  'requestBytes',
  'responseBytes',
] as const;
const IDS = ['keyHi', 'keyLo', 'requestHi', 'requestLo', 'eventId', 'spanIn', 'spanOut'] as const;
const TEXTS = ['operation', 'peerService', 'peerCuid', 'keyText', 'details'] as const;

/** Columns with any of them left out. */
const anyColumns = fc.nat({ max: 40 }).chain(extra => {
  const rows = extra + 1;
  const column = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T[] | undefined> =>
    fc.option(fc.array(value, { minLength: rows, maxLength: rows }), { nil: undefined });
  return fc.array(fc.string({ unit: 'grapheme', maxLength: 30 }), { maxLength: 20 }).chain(texts =>
    fc.record({
      rows: fc.constant(rows),
      baseUnixUs: fc.nat({ max: 2 ** 31 }).map(n => String(n * 2 ** 20)),
      strings: fc.constant(['', ...texts]),
      weight: column(fc.integer({ min: 1, max: 0xffffffff })),
      ...Object.fromEntries(WORDS.map(name => [name, column(U32)])),
      ...Object.fromEntries(IDS.map(name => [name, column(U64.map(String))])),
      ...Object.fromEntries(TEXTS.map(name => [name, column(fc.nat({ max: texts.length }))])),
    }),
  );
});

function firstColumns(bytes: Buffer): EventColumns {
  return decodeReport(bytes).batches[0]!.events!;
}

/** The decoded columns in the form they were written in. */
function readBack(decoded: EventColumns, written: Plain): Plain {
  const plain: Plain = { rows: decoded.rows, baseUnixUs: String(decoded.baseUnixUs), strings: decoded.strings };
  const each = <T>(read: (row: number) => T): T[] => Array.from({ length: decoded.rows }, (_, row) => read(row));
  for (const name of [...WORDS, ...TEXTS, 'weight' as const]) {
    plain[name] = written[name] === undefined ? undefined : each(row => decoded[name][row]);
  }
  for (const name of IDS) {
    plain[name] =
      written[name] === undefined ? undefined : each(row => BigInt(`0x${hex64(decoded[name], row)}`).toString());
  }
  return plain;
}

describe('report decoder', function () {
  this.timeout(30_000);
  it('reads columns as generated code writes them, wherever they lie in the message', () => {
    fc.assert(
      fc.property(anyColumns, fc.nat({ max: 7 }), (written, padding) => {
        const bytes = encodeReport({
          hello: hello({ slot: 'x'.repeat(padding) }),
          batches: [{ producer: '1', seq: '1', events: written }],
        });
        assert.deepEqual(readBack(firstColumns(bytes), written), { ...written });
      }),
      { numRuns: 300 },
    );
  });

  it('reads an absent column as zeros, and absent weights as ones', () => {
    const decoded = firstColumns(encodeReport({ batches: [{ seq: '1', events: { rows: 3 } }] }));
    assert.deepEqual(
      [0, 1, 2].map(row => [decoded.status[row], decoded.weight[row], hex64(decoded.spanIn, row)]),
      Array.from({ length: 3 }, () => [0, 1, '0'.repeat(16)]),
    );
    assert.deepEqual(decoded.strings, ['']);
  });

  it('reads every field of a hello', () => {
    const said = hello({
      cuidAliases: ['7c9e6679-7425-40de-944b-e07fc1f90ae7'],
      edge: true,
      configErrors: ['report.ratio is 7, must be 0 to 1'],
      counters: [{ name: 'not_stamped', value: '12' }],
      producers: [
        {
          id: '18446744073709551615',
          nextSeq: '7',
          droppedEvents: '3',
          batchedEvents: '60',
          ackedSeq: '4',
          ackedEvents: '40',
        },
      ],
    });
    const read = decodeReport(encodeReport({ hello: said })).hello!;
    assert.equal(read.cuid, CUID);
    assert.equal(read.bootEpochUs, 1_700_000_000_000_000);
    assert.deepEqual(read.ports, [8080]);
    assert.deepEqual(read.producers, [
      { id: 2n ** 64n - 1n, nextSeq: 7, droppedEvents: 3, batchedEvents: 60, acked: { seq: 4, events: 40 } },
    ]);
    assert.deepEqual(read.counters, [{ name: 'not_stamped', value: 12 }]);
    assert.equal(read.edge, true);
  });

  it('tells an unset status value from zero', () => {
    const read = decodeReport(
      encodeReport({ status: { inFlight: 0, cpuRatio: 1.5, queueSource: 'QUEUE_SOURCE_APP' } }),
    ).status!;
    assert.deepEqual(read, {
      inFlight: 0,
      cpuRatio: 1,
      queueSource: 1,
      ageMs: 0,
      windowMs: 0,
      requests: 0,
      failures: 0,
    });
  });

  it('reads in-flight lists, progress, heartbeat and goodbye', () => {
    const read = decodeReport(
      encodeReport({
        inFlight: [{ producer: '5', items: [{ eventId: '255', operation: 'GET /slow', ageMs: 7000 }], omitted: 2 }],
        progress: [{ job: 'invoice', done: '30', of: '100', state: 'packing' }],
        heartbeat: {},
        goodbye: { reason: 'drained' },
        sentUnixUs: '1700000000000001',
      }),
    );
    assert.equal(read.inFlight[0]!.items[0]!.eventId, '00000000000000ff');
    assert.equal(read.inFlight[0]!.omitted, 2);
    assert.equal(read.progress[0]!.of, 100);
    assert.equal(read.progress[0]!.queue, undefined);
    assert.equal(read.heartbeat, true);
    assert.equal(read.goodbye?.reason, 'drained');
    assert.equal(read.sentUnixUs, 1_700_000_000_000_001);
  });

  const long = (length: number): string => 'x'.repeat(length);
  const rows = (extra: Plain): Plain => ({ batches: [{ seq: '1', events: { rows: 2, ...extra } }] });
  const refused: [string, Plain, RegExp][] = [
    ['no rows', { batches: [{ seq: '1', events: {} }] }, /^batches\[0\]\.events\.rows: is 0, must be 1 to 4096$/],
    ['4097 rows', { batches: [{ seq: '1', events: { rows: 4097 } }] }, /events\.rows: is 4097/],
    ['a column one short', rows({ status: [200] }), /events\.status: has 1 entries, must have 2/],
    ['a column one long', rows({ keyHi: ['1', '2', '3'] }), /events\.key_hi: has 3 entries/],
    ['an index past the strings', rows({ operation: [0, 1] }), /events\.operation\[1\]: is 1, must be below 1/],
    ['a first string', rows({ strings: ['x'] }), /strings\[0\]: must be empty/],
    ['1025 strings', rows({ strings: Array(1025).fill('') }), /strings: has more than 1024/],
    ['a long string', rows({ strings: ['', long(257)] }), /strings\[1\]: has 257 bytes, at most 256/],
    ['a weight of 0', rows({ weight: [1, 0] }), /weight\[1\]: is 0/],
    ['seq 0', { batches: [{ seq: '0' }] }, /^batches\[0\]\.seq: is 0/],
    [
      '257 batches',
      { batches: Array.from({ length: 257 }, (_, i) => ({ seq: String(i + 1) })) },
      /^batches: has more than 256/,
    ],
    [
      '65537 rows',
      { batches: Array.from({ length: 17 }, () => ({ seq: '1', events: { rows: 4096 } })) },
      /^batches: has more than 65536 rows/,
    ],
    ['65 jobs', { progress: Array(65).fill({ job: 'x' }) }, /^progress: has more than 64/],
    ['a long job', { progress: [{ job: long(65) }] }, /progress\[0\]\.job: has 65 bytes/],
    ['a long state', { progress: [{ state: long(33) }] }, /progress\[0\]\.state: has 33 bytes/],
    [
      '257 in flight',
      { inFlight: [{ items: Array(200).fill({}) }, { items: Array(57).fill({}) }] },
      /in_flight.*more than 256/,
    ],
    ['257 empty lists', { inFlight: Array(257).fill({}) }, /in_flight: has more than 256/],
    ['no CUID', { hello: hello({ cuid: '' }) }, /^hello\.cuid: is empty/],
    ['an upper-case CUID', { hello: hello({ cuid: CUID.toUpperCase() }) }, /^hello\.cuid: is "0F8/],
    ['no proxy', { hello: hello({ proxyId: '' }) }, /^hello\.proxy_id: is empty/],
    ['no service', { hello: hello({ service: '' }) }, /^hello\.service: is empty/],
    ['port 0', { hello: hello({ ports: [0] }) }, /^hello\.ports: contains 0/],
    [
      '17 ports',
      { hello: hello({ ports: Array.from({ length: 17 }, (_, i) => i + 1) }) },
      /^hello\.ports: has more than 16/,
    ],
    ['a name as ip', { hello: hello({ ip: 'localhost' }) }, /^hello\.ip: is "localhost"/],
    [
      'a short interval',
      { hello: hello({ reportIntervalMs: 99 }) },
      /^hello\.report_interval_ms: is 99, must be 100 to 60000/,
    ],
    ['17 errors', { hello: hello({ configErrors: Array(17).fill('x') }) }, /^hello\.config_errors: has more than 16/],
    ['a negative ratio', { status: { cpuRatio: -0.1 } }, /^status\.cpu_ratio: is -0.1, must be 0 to 1/],
    ['a ratio that is no number', { status: { memoryRatio: NaN } }, /^status\.memory_ratio: is NaN/],
    ['a time past 2^53', { sentUnixUs: '18446744073709551615' }, /^sent_unix_us: is above/],
  ];
  for (const [what, report, message] of refused) {
    it(`refuses ${what}, naming the field`, () => {
      assert.throws(() => decodeReport(encodeReport(report)), { name: 'WireError', message });
    });
  }

  it('takes columns that are split or not packed, as the encoding allows', () => {
    const packed = Buffer.from([0xb2, 0x01, 4, 1, 0, 0, 0]); // response_bytes... of field 22 (weight), one entry
    const unpacked = Buffer.from([0xb5, 0x01, 2, 0, 0, 0]);
    const events = Buffer.concat([Buffer.from([8, 3]), packed, unpacked, packed]);
    const message = Buffer.concat([Buffer.from([16, 1, 42, events.length]), events]);
    const decoded = firstColumns(Buffer.concat([Buffer.from([18, message.length]), message]));
    assert.deepEqual([...decoded.weight], [1, 2, 1]);
  });

  it('passes over fields it does not know, of every wire type', () => {
    const unknown = Buffer.from([
      0xf8, 0x07, 0x80, 0x01, 0xf9, 0x07, 1, 2, 3, 4, 5, 6, 7, 8, 0xfa, 0x07, 2, 0, 0, 0xfd, 0x07, 1, 2, 3, 4,
    ]);
    const read = decodeReport(Buffer.concat([unknown, encodeReport({ heartbeat: {} }), unknown]));
    assert.equal(read.heartbeat, true);
  });

  it('throws nothing but its own error, whatever the bytes', () => {
    const good = encodeReport({
      hello: hello({ counters: [{ name: 'a', value: '1' }] }),
      batches: [batch(1, [{}, { peerService: 'stock.shop' }], { counts: [{ operation: 'GET /pay', count: '2' }] })],
      status: { inFlight: 3, cpuRatio: 0.5 },
      inFlight: [{ producer: '5', items: [{ eventId: '255', operation: 'x' }] }],
      progress: [{ job: 'j', done: '1' }],
      sentUnixUs: '1700000000000001',
    });
    decodeReport(good);
    const harmless = (bytes: Buffer): void => {
      try {
        decodeReport(bytes);
      } catch (error) {
        assert.ok(error instanceof WireError, `${String(error)} for ${bytes.toString('hex')}`);
      }
    };
    for (let length = 0; length < good.length; length++) harmless(good.subarray(0, length));
    const change = fc.record({ at: fc.nat({ max: good.length - 1 }), byte: fc.nat({ max: 255 }) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 8 }), changes => {
        const bytes = Buffer.from(good);
        for (const { at, byte } of changes) bytes[at] = byte;
        harmless(bytes);
      }),
      { numRuns: 20_000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), bytes => harmless(Buffer.from(bytes))),
      { numRuns: 5000 },
    );
  });

  it('copies a column only when it is not aligned', () => {
    const bytes = encodeReport({ batches: [{ seq: '1', events: columns([{}, {}]) }] });
    for (let shift = 0; shift < 8; shift++) {
      const moved = Buffer.from(new ArrayBuffer(bytes.length + shift), shift);
      bytes.copy(moved);
      assert.deepEqual([...firstColumns(moved).status], [200, 200]);
    }
  });
});
