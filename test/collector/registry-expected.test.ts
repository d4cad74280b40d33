import assert from 'node:assert/strict';
import { EXPECTED_MAX, EXPECTED_MS } from '../../collector/src/registry/expected.js';
import { batch, CUID, hello, OTHER_CUID, type Plain, type RowSpec } from './ingest-support.js';
import { start, type TestCollector } from './rpc-support.js';

const CALL = 1;
const PROBE = 8;
const EXTERNAL = 128;
const EXPECTED = 'INSTANCE_STATE_EXPECTED';

describe('instances that never reported', function () {
  this.timeout(30_000);
  let collector: TestCollector;
  beforeEach(async () => (collector = await start()));
  afterEach(() => collector.stop());

  let seq = 0;
  const called = (...rows: readonly RowSpec[]): Promise<Plain> => {
    seq += 1;
    const calls = rows.map(row => ({ flags: CALL, ...row }));
    return collector.call('Ingest.ReportOnce', { hello: hello(), batches: [batch(seq, calls, { firstEvent: '0' })] });
  };
  const reports = (extra: Plain): Promise<Plain> =>
    collector.call('Ingest.ReportOnce', {
      hello: hello({ cuid: OTHER_CUID, proxyId: 'p2', ip: '10.0.0.8', ...extra }),
    });
  const expected = async (): Promise<Plain[]> =>
    ((await collector.call('Registry.ListInstances', { states: [EXPECTED], pageSize: 1000 }))['instances'] ??
      []) as Plain[];
  const names = async (): Promise<unknown[]> => (await expected()).map(one => one['service']).sort();

  it('are those that callers name inside the mesh, by CUID where answers carried one', async () => {
    await called(
      { peerService: 'stock.shop.svc.cluster.local' },
      { peerService: 'stock.shop.svc.cluster.local', status: 503, outcome: 2 },
      { peerService: 'mail.shop', peerCuid: OTHER_CUID },
      { peerService: '10.0.0.9:8080' },
      { peerService: 'api.bank.example', flags: CALL | EXTERNAL },
      { peerService: 'probed.shop', flags: CALL | PROBE },
      { peerService: 'payment.shop' },
      {},
    );
    assert.deepEqual(await names(), ['10.0.0.9', 'mail.shop', 'stock.shop']);
    const [byAddress] = (await expected()).filter(one => one['service'] === '10.0.0.9');
    assert.deepEqual([byAddress!['ip'], byAddress!['ports'], byAddress!['cluster']], ['10.0.0.9', [8080], 'c1']);
    const byCuid = await collector.call('Registry.GetInstance', { cuid: OTHER_CUID });
    assert.deepEqual([byCuid['service'], byCuid['state']], ['mail.shop', EXPECTED]);
    const services = (await collector.call('Registry.ListServices'))['services'] as Plain[];
    assert.deepEqual(
      services.filter(one => one['expected'] === 1).map(one => one['name']),
      ['10.0.0.9', 'mail.shop', 'stock.shop'],
    );
    const { text } = await collector.get('/metrics');
    const labels = 'destination_service="stock.shop",destination_cluster="c1",state="expected"';
    assert.ok(text.includes(`meshpulse_instances{${labels}} 1\n`));
    assert.equal(((await collector.call('Registry.ListInstances'))['instances'] as Plain[]).length, 4);
  });

  const arrivals: [string, Plain][] = [
    ['its service', { service: 'stock.shop', ip: '10.0.0.1' }],
    ['its address', { service: 'other.shop', ip: '10.0.0.9' }],
    ['its CUID', { service: 'third.shop', ip: '10.0.0.2', cuid: CUID.replace('0', '1') }],
    ['its CUID as an alias', { service: 'third.shop', ip: '10.0.0.2', cuidAliases: [CUID.replace('0', '1')] }],
  ];
  for (const [what, extra] of arrivals) {
    it(`go when a life reports with ${what}, and only then`, async () => {
      const all: RowSpec[] = [
        { peerService: 'stock.shop' },
        { peerService: '10.0.0.9:80' },
        { peerService: 'mail.shop', peerCuid: CUID.replace('0', '1') },
      ];
      await called(...all);
      await reports({ service: 'unrelated.shop', ip: '10.0.0.3', proxyId: 'p3', cuid: CUID.replace('0', '2') });
      assert.equal((await expected()).length, 3);
      await reports(extra);
      assert.equal((await expected()).length, 2);
    });
  }

  it('stay apart by cluster: a life elsewhere is not the one that is missing', async () => {
    await called({ peerService: 'stock.shop' });
    await reports({ service: 'other.shop', ip: '10.0.0.9', cluster: 'c2' });
    assert.deepEqual(await names(), ['stock.shop']);
  });

  it('are forgotten when nobody names them any more', async () => {
    await called({ peerService: 'stock.shop' }, { peerService: 'mail.shop' });
    collector.clock.advanceMs(EXPECTED_MS);
    await called({ peerService: 'mail.shop' });
    collector.clock.advanceMs(1);
    collector.running.tick();
    assert.deepEqual(await names(), ['mail.shop']);
  });

  it('are bounded: those unnamed for longest go first, and a metric says how many', async () => {
    for (let from = 0; from <= EXPECTED_MAX; from += 500) {
      await called(...Array.from({ length: 500 }, (_, i) => ({ peerService: `s${from + i}.shop` })));
    }
    const left = await names();
    assert.deepEqual(
      [left.length, left.includes('s499.shop'), left.includes('s500.shop')],
      [EXPECTED_MAX, false, true],
    );
    assert.match((await collector.get('/metrics')).text, /expected_evicted_total 500\n/);
  });
});
