import assert from 'node:assert/strict';
import {
  credentials,
  loadPackageDefinition,
  status as Code,
  type ClientDuplexStream,
  type GrpcObject,
} from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import { service as healthService } from 'grpc-health-check';
import { makeGenericClientConstructor } from '@grpc/grpc-js';
import { batch, CUID, hello, OTHER_CUID, type Plain, type RowSpec } from './ingest-support.js';
import { start, until, type TestCollector } from './rpc-support.js';

const CALL = 1;
const EXTERNAL = 128;
const STREAM = 4;
const FAILED = 2;

describe('read calls', function () {
  this.timeout(30_000);
  let collector: TestCollector;
  beforeEach(async () => (collector = await start()));
  afterEach(() => collector.stop());

  const services = async (request: Plain = {}): Promise<Plain[]> =>
    (await collector.call('Registry.ListServices', request))['services'] as Plain[];
  const report = (rows: readonly RowSpec[], extra: Plain = {}): Promise<Plain> =>
    collector.report().ask({ hello: hello(), batches: [batch(1, rows)], ...extra });

  it('count exactly by operation, status, flags, outcome and kind', async () => {
    await report([
      {},
      {},
      { status: 503, responseFlags: (1 << 2) | (1 << 15), outcome: FAILED },
      { status: 200 | (15 << 16), operation: '/shop.Pay/Charge', outcome: FAILED },
      { flags: STREAM, status: 101 },
      { flags: CALL, peerService: 'stock.shop' },
    ]);
    const [service] = await services({ service: 'payment.shop' });
    const rows = (service!['operations'] as Plain[]).map(row => [
      row['operation'],
      row['responseCode'],
      row['grpcStatus'],
      row['responseFlags'],
      row['outcome'],
      ((row['labels'] ?? []) as string[]).join(),
      row['count'],
    ]);
    assert.deepEqual(rows, [
      ['GET /pay', 200, undefined, '', 'OUTCOME_OK', '', '2'],
      ['GET /pay', 503, undefined, 'UT,URX', 'OUTCOME_FAILED', '', '1'],
      ['/shop.Pay/Charge', 200, 14, '', 'OUTCOME_FAILED', '', '1'],
      ['GET /pay', 101, undefined, '', 'OUTCOME_OK', 'stream', '1'],
    ]);
    assert.equal(service!['events'], '5');
  });

  it('count calls to services without a sidecar, until one shows up', async () => {
    await report([
      { flags: CALL | EXTERNAL, peerService: 'api.bank.example:443' },
      { flags: CALL, peerService: 'stock.shop.svc.cluster.local' },
      { flags: CALL, peerService: 'mail.shop', peerCuid: OTHER_CUID },
      { flags: CALL, peerService: 'payment.shop' },
    ]);
    const external = (await services())
      .filter(service => service['external'])
      .map(service => [service['name'], service['events']]);
    assert.deepEqual(external, [
      ['api.bank.example', '1'],
      ['stock.shop', '1'],
    ]);
    await collector
      .report()
      .ask({ hello: hello({ cuid: OTHER_CUID, proxyId: 'p2', service: 'stock.shop', ip: '10.0.0.8' }) });
    const [stock] = await services({ service: 'stock.shop' });
    assert.deepEqual([stock!['external'], stock!['events'], stock!['live']], [false, '0', 1]);
  });

  it('count by the exact counts when rows are thinned', async () => {
    const counts = [{ operation: 'GET /pay', status: 200, flags: 1 << 16, count: '1000', durationUsSum: '5000000' }];
    await collector.report().ask({ hello: hello(), batches: [batch(1, [{}], { counts })] });
    assert.equal((await services())[0]!['events'], '1000');
  });

  it('fold operations past 200 into other, so that sums stay right', async () => {
    await report(Array.from({ length: 300 }, (_, i) => ({ operation: `GET /${i}` })));
    const [service] = await services();
    const rows = service!['operations'] as Plain[];
    assert.deepEqual([rows.length, service!['events']], [201, '300']);
    assert.equal(rows.find(row => row['operation'] === 'other')?.['count'], '100');
  });

  it('sum what live instances say, and leave out what nobody says', async () => {
    const stream = collector.report();
    await stream.ask({ hello: hello(), status: { inFlight: 4 } });
    await collector
      .report()
      .ask({ hello: hello({ cuid: OTHER_CUID, proxyId: 'p2', ip: '10.0.0.8' }), status: { inFlight: 3 } });
    const [service] = await services();
    assert.deepEqual([service!['inFlight'], service!['queue'], service!['live']], [7, undefined, 2]);
  });

  it('list in pages, in an order that holds, and narrow by service, namespace and state', async () => {
    for (let i = 0; i < 5; i++) {
      collector.clock.advanceMs(1000);
      const service = i < 3 ? 'payment.shop' : 'audit.bank';
      await collector
        .report()
        .ask({ hello: hello({ cuid: `${i}${CUID.slice(1)}`, proxyId: `p${i}`, ip: `10.0.0.${i}`, service }) });
    }
    const cuids: unknown[] = [];
    let pageToken = '';
    do {
      const answer = await collector.call('Registry.ListInstances', { pageSize: 2, pageToken });
      cuids.push(...(answer['instances'] as Plain[]).map(one => (one['cuid'] as string)[0]));
      pageToken = (answer['nextPageToken'] ?? '') as string;
    } while (pageToken !== '');
    assert.deepEqual(cuids, ['4', '3', '2', '1', '0']);
    const ask = async (request: Plain): Promise<number> =>
      (((await collector.call('Registry.ListInstances', request))['instances'] as Plain[] | undefined) ?? []).length;
    assert.deepEqual(
      [
        await ask({ namespace: 'bank' }),
        await ask({ service: 'payment.shop' }),
        await ask({ states: ['INSTANCE_STATE_GONE'] }),
      ],
      [2, 3, 0],
    );
    assert.deepEqual(
      (await services({ namespace: 'bank' })).map(one => one['name']),
      ['audit.bank'],
    );
  });

  const bad: [string, Plain, string][] = [
    ['Registry.ListServices', { pageSize: 1001 }, 'page_size is 1001, must be 1 to 1000, or unset for 100'],
    ['Registry.ListInstances', { pageToken: '!!' }, 'page_token is "!!", must be a next_page_token of this list'],
    ['Registry.WhoHad', { ip: 'payment' }, 'ip is "payment", must be IPv4 or IPv6 text'],
    ['Registry.WhoHad', { ip: '10.0.0.7', port: 65536 }, 'port is 65536, must be 0 (any) to 65535'],
    ['Registry.GetInstance', {}, 'cuid is "", must be a CUID or alias, in lower case'],
    ['Transactions.Get', {}, 'id is "", must be a transaction key, an x-request-id or an event id'],
    ['Transactions.List', { pageSize: 1001 }, 'page_size is 1001, must be 1 to 1000, or unset for 100'],
  ];
  for (const [name, request, details] of bad) {
    it(`refuse ${JSON.stringify(request)} in ${name}, naming field, value and range`, async () => {
      await assert.rejects(collector.call(name, request), { code: Code.INVALID_ARGUMENT, details });
    });
  }

  it('repeat of a long value only its beginning', async () => {
    const long = 'x'.repeat(200_000);
    for (const [name, request] of [
      ['Registry.WhoHad', { ip: long }],
      ['Registry.GetInstance', { cuid: long }],
      ['Registry.ListServices', { pageToken: long }],
      ['Registry.ListInstances', { pageToken: long }],
      ['Transactions.Get', { id: long }],
    ] as const) {
      await assert.rejects(collector.call(name, request), { details: /"x{79}… \(200002 characters\)/ }, name);
    }
  });

  it('say how far back lives are remembered when one is not found', async () => {
    await assert.rejects(collector.call('Registry.GetInstance', { cuid: CUID }), {
      code: Code.NOT_FOUND,
      details: /remembered since 2023-11-14T22:13:20/,
    });
  });

  it('answer who had an address at a time', async () => {
    const stream = collector.report();
    await stream.ask({ hello: hello({ bootEpoch: '0' }) });
    collector.clock.advanceMs(10_000);
    await stream.ask({ goodbye: {} });
    const ask = (seconds: number): Promise<Plain> =>
      collector.call('Registry.WhoHad', { ip: '10.0.0.7', at: { seconds: String(seconds) } });
    const [holder] = (await ask(1_700_000_005))['intervals'] as Plain[];
    assert.deepEqual([holder!['cuid'], holder!['to']], [CUID, { seconds: '1700000010', nanos: 0 }]);
    const after = await ask(1_700_000_010);
    assert.deepEqual([after['intervals'] ?? [], after['unknown']], [[], true]);
    assert.match((await ask(1_600_000_000))['note'] as string, /only remembered since/);
  });

  it('watch states: all of them, then changes, the latest only for slow readers', async () => {
    const stream = collector.report();
    await stream.ask({ hello: hello(), status: { inFlight: 1 } });
    const updates: Plain[] = [];
    const watch = collector.clients.stream('Registry.WatchStatus', { minIntervalMs: 100 });
    watch.on('data', (update: Plain) => updates.push(update));
    watch.on('error', () => undefined);
    await until('synced', () => (updates.some(update => update['synced']) ? true : undefined));
    for (let inFlight = 2; inFlight <= 30; inFlight++) await stream.ask({ status: { inFlight } });
    const inFlight = (update: Plain | undefined): unknown =>
      ((update?.['instance'] as Plain | undefined)?.['status'] as Plain | undefined)?.['inFlight'];
    await until('the last state', () => (inFlight(updates.at(-1)) === 30 ? true : undefined));
    assert.ok(updates.length < 15, `${updates.length} updates for 29 changes`);
    watch.cancel();
    await assert.rejects(
      new Promise((_, reject) =>
        collector.clients
          .stream('Registry.WatchStatus', { minIntervalMs: 99 })
          .on('data', () => undefined)
          .on('error', reject),
      ),
      { code: Code.INVALID_ARGUMENT },
    );
  });

  it('show the age of status and progress, and unset values as absent', async () => {
    await report([{}], {
      status: { inFlight: 0, ageMs: 250, queue: 7, queueSource: 'QUEUE_SOURCE_APP' },
      progress: [{ job: 'invoice', done: '30', of: '100', state: 'packing', ageMs: 10 }],
    });
    collector.clock.advanceMs(1000);
    const life = await collector.call('Registry.GetInstance', { cuid: CUID });
    const status = life['status'] as Plain;
    assert.deepEqual(
      [status['inFlight'], status['queue'], status['cpuRatio'], life['statusAgeMs']],
      [0, 7, undefined, 1250],
    );
    const [job] = life['progress'] as Plain[];
    assert.deepEqual([job!['job'], job!['done'], job!['queue'], job!['ageMs']], ['invoice', '30', undefined, 1010]);
  });

  it('are all shown by reflection', async () => {
    const json = { nested: { grpc: { nested: { reflection: { nested: { v1: { nested: REFLECTION } } } } } } };
    const loaded = loadPackageDefinition(fromJSON(json as never, { keepCase: true })) as unknown as Record<
      string,
      GrpcObject
    >;
    const Constructor = (((loaded['grpc'] as GrpcObject)['reflection'] as GrpcObject)['v1'] as GrpcObject)[
      'ServerReflection'
    ] as unknown as new (
      address: string,
      creds: unknown,
    ) => { ServerReflectionInfo(): ClientDuplexStream<Plain, Plain>; close(): void };
    const client = new Constructor(collector.running.grpc, credentials.createInsecure());
    const call = client.ServerReflectionInfo();
    const answers: Plain[] = [];
    call.on('data', (answer: Plain) => answers.push(answer));
    call.write({ list_services: '' });
    call.write({ file_containing_symbol: 'meshpulse.v1.Registry' });
    await until('two answers', () => (answers.length === 2 ? true : undefined));
    const listed = ((answers[0]!['list_services_response'] as Plain)['service'] as Plain[]).map(
      service => service['name'],
    );
    for (const name of ['Ingest', 'Registry', 'Transactions'])
      assert.ok(listed.includes(`meshpulse.v1.${name}`), String(listed));
    const files = (answers[1]!['file_descriptor_response'] as Plain)['file_descriptor_proto'] as Buffer[];
    assert.ok(Buffer.concat(files).includes('in_flight'), 'fields by the names of the proto files');
    call.end();
    client.close();
  });

  it('tell their health by service', async () => {
    const Constructor = makeGenericClientConstructor(healthService, 'Health');
    const client = new Constructor(collector.running.grpc, credentials.createInsecure()) as unknown as {
      check(request: Plain, done: (error: Error | null, answer: Plain) => void): void;
      close(): void;
    };
    for (const name of ['', 'meshpulse.v1.Ingest', 'meshpulse.v1.Registry', 'meshpulse.v1.Transactions']) {
      const answer = await new Promise<Plain>((resolve, reject) =>
        client.check({ service: name }, (error, value) => (error === null ? resolve(value) : reject(error))),
      );
      assert.equal(answer['status'], 'SERVING');
    }
    client.close();
  });
});

/** The part of grpc.reflection.v1 that the test speaks. */
const REFLECTION = {
  ServerReflection: {
    methods: {
      ServerReflectionInfo: {
        requestType: 'ServerReflectionRequest',
        requestStream: true,
        responseType: 'ServerReflectionResponse',
        responseStream: true,
      },
    },
  },
  ServerReflectionRequest: {
    oneofs: { message_request: { oneof: ['file_containing_symbol', 'list_services'] } },
    fields: { file_containing_symbol: { type: 'string', id: 4 }, list_services: { type: 'string', id: 7 } },
  },
  ServerReflectionResponse: {
    fields: {
      file_descriptor_response: { type: 'FileDescriptorResponse', id: 4 },
      list_services_response: { type: 'ListServiceResponse', id: 6 },
    },
  },
  FileDescriptorResponse: { fields: { file_descriptor_proto: { rule: 'repeated', type: 'bytes', id: 1 } } },
  ListServiceResponse: { fields: { service: { rule: 'repeated', type: 'ServiceResponse', id: 1 } } },
  ServiceResponse: { fields: { name: { type: 'string', id: 1 } } },
};
