import assert from 'node:assert/strict';
import { toJson } from '../../collector/src/http/json.js';
import { batch, CUID, hello, type Plain } from './ingest-support.js';
import { start, type TestCollector } from './rpc-support.js';

describe('HTTP', function () {
  this.timeout(30_000);
  let collector: TestCollector;
  before(async () => {
    collector = await start();
    await collector
      .report()
      .ask({ hello: hello(), batches: [batch(1, [{}, { status: 404, outcome: 3 }])], status: { inFlight: 2 } });
  });
  after(() => collector.stop());

  it('answers the read calls as proto3 JSON', async () => {
    const { services } = (await collector.get('/api/v1/services?page_size=5')).json() as { services: Plain[] };
    assert.deepEqual(services[0], {
      name: 'payment.shop',
      cluster: 'c1',
      live: 1,
      silent: 0,
      gone: 0,
      external: false,
      expected: 0,
      inFlight: 2,
      operations: [
        { operation: 'GET /pay', responseCode: 200, responseFlags: '', outcome: 'OUTCOME_OK', labels: [], count: '1' },
        {
          operation: 'GET /pay',
          responseCode: 404,
          responseFlags: '',
          outcome: 'OUTCOME_DECLINED',
          labels: [],
          count: '1',
        },
      ],
      events: '2',
      countingSince: '2023-11-14T22:13:20Z',
    });
  });

  it('answers about instances, one and many', async () => {
    const { instances } = (await collector.get('/api/v1/instances?states=live&service=payment.shop')).json() as {
      instances: Plain[];
    };
    const one = (await collector.get(`/api/v1/instances/${CUID}`)).json();
    assert.deepEqual(instances[0], one);
    assert.deepEqual(one['status'], {
      inFlight: 2,
      queueSource: 'QUEUE_SOURCE_UNSPECIFIED',
      ageMs: 0,
      windowMs: 0,
      requests: 0,
      failures: 0,
    });
    assert.equal('ended' in one, false);
  });

  it('answers who had an address', async () => {
    const now = (await collector.get('/api/v1/who?ip=10.0.0.7&port=8080')).json() as { intervals: Plain[] };
    assert.deepEqual([now.intervals[0]!['cuid'], now.intervals[0]!['port']], [CUID, 8080]);
    const then = (await collector.get('/api/v1/who?ip=10.0.0.7&at=2023-01-01T00:00:00Z')).json();
    assert.equal(then['unknown'], true);
  });

  const refused: [string, number, string][] = [
    ['/api/v1/who?ip=x', 400, 'ip is "x", must be IPv4 or IPv6 text'],
    [
      '/api/v1/who?ip=10.0.0.7&at=yesterday',
      400,
      'at is "yesterday", must be a time in RFC 3339, like 2026-01-31T12:00:00Z',
    ],
    ['/api/v1/who?ip=10.0.0.7&port=80x', 400, 'port is "80x", must be a whole number'],
    ['/api/v1/services?pageSize=1001', 400, 'page_size is 1001, must be 1 to 1000, or unset for 100'],
    ['/api/v1/services?colour=red', 400, 'query is "colour", must be one of service, namespace, pageSize, pageToken'],
    ['/api/v1/instances/%ff', 400, 'path is "%ff", must be percent-encoded UTF-8'],
    ['/api/v1/transactions?olderThan=soon', 400, 'olderThan is "soon", must be seconds, like 5s'],
    ['/api/v1/nothing', 404, 'there is nothing at /api/v1/nothing'],
    ['/else', 404, 'there is nothing at /else'],
  ];
  for (const [path, code, error] of refused) {
    it(`answers ${code} to ${path}`, async () => {
      const answer = await collector.get(path);
      assert.deepEqual([answer.code, answer.json()], [code, { error }]);
    });
  }

  it('answers 404 for an unknown life with the sentence of the call', async () => {
    const answer = await collector.get('/api/v1/instances/none');
    assert.equal(answer.code, 404);
    assert.match(answer.json()['error'] as string, /no life with CUID "none" is known/);
  });

  it('takes nothing but GET', async () => {
    const response = await fetch(`http://${collector.running.http}/api/v1/services`, { method: 'POST' });
    assert.equal(response.status, 405);
  });

  it('is healthy and ready', async () => {
    assert.deepEqual([(await collector.get('/healthz')).code, (await collector.get('/readyz')).code], [200, 200]);
  });
});

describe('proto3 JSON', () => {
  it('writes times with as many digits as they need', () => {
    const shown = (nanos: number): unknown =>
      toJson('Transaction', { started: { seconds: '1700000000', nanos } })['started'];
    assert.deepEqual([0, 500_000_000, 1000, 1].map(shown), [
      '2023-11-14T22:13:20Z',
      '2023-11-14T22:13:20.500Z',
      '2023-11-14T22:13:20.000001Z',
      '2023-11-14T22:13:20.000000001Z',
    ]);
  });

  it('writes durations, also short and negative ones', () => {
    const shown = (seconds: number, nanos: number): unknown =>
      toJson('Transaction', { duration: { seconds, nanos } })['duration'];
    assert.deepEqual([shown(3, 0), shown(0, 1_500_000), shown(-1, -500_000_000)], ['3s', '0.001500s', '-1.500s']);
  });

  it('fills in what has no presence, and leaves out what has', () => {
    const json = toJson('Transaction', {});
    assert.deepEqual(
      [json['key'], json['state'], json['requestIds'], json['entries']],
      ['', 'TRANSACTION_STATE_UNSPECIFIED', [], 0],
    );
    assert.equal('started' in json, false);
  });

  it('follows messages inside messages', () => {
    const json = toJson('Transaction', { events: [{ eventId: 'a', call: { attempts: 2 } }] });
    const [event] = json['events'] as Plain[];
    assert.equal((event!['call'] as Plain)['attempts'], 2);
    assert.equal('grpcStatus' in event!, false);
  });
});
