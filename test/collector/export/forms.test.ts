import assert from 'node:assert/strict';
import { readChunk, rowsOf, writeFrame, type Rows } from '../../../collector/src/export/batches.js';
import { LineEncoder } from '../../../collector/src/export/lines.js';
import { OtlpEncoder, rejectedOf } from '../../../collector/src/export/otlp.js';
import { rfc3339, serviceParts } from '../../../collector/src/export/words.js';
import { columns, OTHER_CUID, type Plain } from '../ingest-support.js';
import { BASE_US, decodeOtlp, frameOf, ORIGIN, rowsFrom } from './support.js';

const CALL = 1;
const ENTRY = 2;
const STREAM = 4;
const B3 = 3;
const REQUEST_ID = 9;
const KEY = 0x0af7_6519_16cd_43ddn;
const [OK, FAILED] = [1, 2];

const flags = (bits: number, outcome: number, source: number, attempts = 0): number =>
  (bits | (outcome << 16) | (source << 20) | (attempts << 24)) >>> 0;

/** An entry that went well, a failed gRPC call after three attempts, an open stream with a text in every column. */
function threeRows(): Plain {
  const made = columns(
    [
      { operation: 'GET /pay/*' },
      { operation: '/shop.Pay/Charge', status: 200 | (15 << 16), peerService: 'bank.ext', peerCuid: OTHER_CUID },
      { operation: 'GET /ü"\\\n', status: 101 },
    ],
    BASE_US,
  );
  const strings = [...(made['strings'] as string[]), 'via "details"', 'order-1'];
  return {
    ...made,
    strings,
    keyHi: [String(KEY), String(KEY), '1'],
    keyLo: ['18446744073709551615', '1', '2'],
    requestHi: ['0', '3', '4'],
    requestLo: ['0', '5', '6'],
    eventId: ['255', '0', '9'],
    spanIn: ['256', '0', '0'],
    spanOut: ['257', '7', '0'],
    endOffsetUs: [0, 999_999, 4_294_967_295],
    durationUs: [0, 4_294_967_295, 0],
    flags: [flags(ENTRY, OK, B3), flags(CALL, FAILED, REQUEST_ID, 3), flags(STREAM, OK, B3)],
    responseFlags: [0, 2 ** 5, 0],
    waitUs: [0, 77, 0],
    requestBytes: [0, 0, 4_294_967_295],
    responseBytes: [0, 0, 12],
    weight: [1, 1, 50],
    keyText: [0, 0, strings.length - 1],
    details: [0, 0, strings.length - 2],
  };
}

const linesOf = (rows: Rows): string => new LineEncoder().lines(rows).toString();

describe('events as OTLP log records', () => {
  const encoder = new OtlpEncoder('1.2.3');
  const [decoded] = decodeOtlp(encoder.request([rowsFrom(threeRows())]));

  it('have the life that reported as their resource', () => {
    assert.deepEqual(decoded!.resource, {
      'service.name': 'payment',
      'service.namespace': 'shop',
      'service.instance.id': ORIGIN.cuid,
      'k8s.cluster.name': 'c1',
      'k8s.node.name': 'node-1',
      'meshpulse.workload': 'payment',
      'meshpulse.slot': 'payment-0',
      'meshpulse.filter.version': '0.1.0',
    });
    assert.deepEqual(decoded!.scope, { name: 'meshpulse', version: '1.2.3' });
  });

  it('say what an event was, and leave out what is not known', () => {
    const { attributes, ...record } = decoded!.records[0]!;
    assert.deepEqual(attributes, {
      'log.record.uid': '000000000000000b-7-0',
      'meshpulse.transaction.id': '0af7651916cd43ddffffffffffffffff',
      'meshpulse.event.id': '00000000000000ff',
      'meshpulse.outcome': 'ok',
      'meshpulse.duration_us': '0',
      'http.response.status_code': '200',
      'meshpulse.entry': true,
    });
    assert.deepEqual(
      [record.timeUnixNano, record.observedTimeUnixNano, record.severityNumber, record.severityText],
      [`${BASE_US}000`, `${BASE_US + 2e6}000`, 9, 'INFO'],
    );
    assert.deepEqual(
      [record.body, record.traceId, record.spanId, record.eventName],
      [{ stringValue: 'GET /pay/*' }, '0af7651916cd43ddffffffffffffffff', '0000000000000100', 'meshpulse.event'],
    );
  });

  it('say of a failed call whom it called and how often', () => {
    const { attributes, ...record } = decoded!.records[1]!;
    assert.deepEqual(attributes, {
      'log.record.uid': '000000000000000b-7-1',
      'meshpulse.transaction.id': '0af7651916cd43dd0000000000000001',
      'meshpulse.request.id': '00000000000000030000000000000005',
      'meshpulse.outcome': 'failed',
      'meshpulse.duration_us': '4294967295',
      'http.response.status_code': '200',
      'rpc.grpc.status_code': '14',
      'meshpulse.attempts': '3',
      'meshpulse.peer.service': 'bank.ext',
      'meshpulse.peer.cuid': OTHER_CUID,
      'meshpulse.response_flags': 'UF',
      'meshpulse.wait_us': '77',
    });
    // A request id is no trace id.
    assert.deepEqual([record.severityText, record.traceId, record.eventName], ['ERROR', undefined, 'meshpulse.call']);
  });

  it('give streams bytes and no duration, and thinned rows their weight', () => {
    const { attributes, body, timeUnixNano } = decoded!.records[2]!;
    assert.deepEqual(
      [attributes['meshpulse.duration_us'], attributes['meshpulse.request_bytes'], attributes['meshpulse.weight']],
      [undefined, '4294967295', '50'],
    );
    assert.deepEqual(
      [attributes['meshpulse.labels'], attributes['meshpulse.response_code_details'], body.stringValue],
      ['stream', 'via "details"', 'GET /ü"\\\n'],
    );
    assert.equal(attributes['meshpulse.transaction.text'], 'order-1');
    assert.equal(timeUnixNano, `${BASE_US + 4_294_967_295}000`);
  });

  it('are read the same by the decoder when many batches of many rows go in one request', () => {
    const many = columns(
      Array.from({ length: 4096 }, (_, i) => ({ operation: `GET /${i % 200}/${'x'.repeat(200)}` })),
      BASE_US,
    );
    const batches = decodeOtlp(encoder.request([rowsFrom(many, 1), rowsFrom(threeRows(), 2), rowsFrom(many, 3)]));
    assert.deepEqual(
      batches.map(({ records }) => records.length),
      [4096, 3, 4096],
    );
    const uids = batches.flatMap(({ records }) => records.map(({ attributes }) => attributes['log.record.uid']));
    assert.equal(new Set(uids).size, 8195);
    assert.equal(uids[4095], '000000000000000b-1-4095');
  });

  it('times are by the clock of the collector', () => {
    const rows = { ...rowsFrom(threeRows()), clockOffsetUs: 1_500_000.5 };
    const [first] = decodeOtlp(encoder.request([rows]))[0]!.records;
    assert.equal(first!.timeUnixNano, `${BASE_US - 1_500_000}000`);
  });

  it('what a sink did not take is read from its answer, if it says so', () => {
    // ExportLogsServiceResponse { partial_success { rejected_log_records: 300, error_message: "no" } }
    assert.equal(rejectedOf(Buffer.from([0x0a, 7, 0x08, 0xac, 0x02, 0x12, 2, 0x6e, 0x6f])), 300);
    for (const answer of ['', '{}', '<html>', '\x0a\xff\xff\xff\xff\x0f']) {
      assert.equal(rejectedOf(Buffer.from(answer, 'latin1')), 0, JSON.stringify(answer));
    }
  });
});

describe('events as JSON lines', () => {
  it('hold what the row holds, under the names of the API', () => {
    const lines = linesOf({ ...rowsFrom(threeRows()), clockOffsetUs: -1 }).split('\n');
    assert.equal(lines.pop(), '');
    const [event, call, stream] = lines.map(line => JSON.parse(line) as Plain);
    const life = { cuid: ORIGIN.cuid, service: 'payment.shop', cluster: 'c1', node: 'node-1', workload: 'payment' };
    const rest = { ...life, slot: 'payment-0', received: '2023-11-14T22:13:22.000000Z' };
    assert.deepEqual(event, {
      id: '000000000000000b-7-0',
      kind: 'event',
      at: '2023-11-14T22:13:20.000001Z',
      operation: 'GET /pay/*',
      outcome: 'ok',
      durationUs: 0,
      responseCode: 200,
      key: '0af7651916cd43ddffffffffffffffff',
      keySource: 'b3',
      eventId: '00000000000000ff',
      spanIn: '0000000000000100',
      spanOut: '0000000000000101',
      entry: true,
      ...rest,
    });
    assert.deepEqual(
      [
        call!['kind'],
        call!['attempts'],
        call!['grpcStatus'],
        call!['responseFlags'],
        call!['peerCuid'],
        call!['waitUs'],
      ],
      ['call', 3, 14, 'UF', OTHER_CUID, 77],
    );
    assert.deepEqual(
      [stream!['operation'], stream!['labels'], stream!['details'], stream!['keyText'], 'durationUs' in stream!],
      ['GET /ü"\\\n', ['stream'], 'via "details"', 'order-1', false],
    );
  });
});

describe('a chunk of batches', () => {
  it('gives back each frame as it was', () => {
    const frames = [frameOf(threeRows(), 1), frameOf(columns([{}]), 2, { ...ORIGIN, service: 'x' })];
    const chunk = Buffer.alloc(64 * 1024);
    let used = 0;
    for (const frame of frames) used = writeFrame(chunk, used, frame);
    const read = [...readChunk(chunk.subarray(0, used))];
    assert.deepEqual(
      read.map(frame => [frame.records, frame.receivedUs, rowsOf(frame)!.origin.service, rowsOf(frame)!.batchId]),
      [
        [3, BASE_US + 2e6, 'payment.shop', '000000000000000b-1'],
        [1, BASE_US + 2e6, 'x', '000000000000000b-2'],
      ],
    );
    assert.equal(linesOf(rowsOf(read[0]!)!), linesOf(rowsFrom(threeRows(), 1)));
  });
});

describe('words of exports', () => {
  it('times have six digits of a second, whatever is rounded', () => {
    assert.deepEqual([0, 999_999.7, 1_700_000_000_123_456].map(rfc3339), [
      '1970-01-01T00:00:00.000000Z',
      '1970-01-01T00:00:01.000000Z',
      '2023-11-14T22:13:20.123456Z',
    ]);
  });

  it('a service is its name and its namespace', () => {
    assert.deepEqual(
      ['payment.shop', 'payment', 'a.b.c'].map(service => Object.values(serviceParts(service))),
      [
        ['payment', 'shop'],
        ['payment', ''],
        ['a.b', 'c'],
      ],
    );
  });
});
