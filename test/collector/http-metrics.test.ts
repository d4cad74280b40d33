import assert from 'node:assert/strict';
import { CATALOGUE } from '../../collector/src/metrics/catalogue.js';
import { Exporter } from '../../collector/src/metrics/exporter.js';
import { batch, hello, type Plain } from './ingest-support.js';
import { start } from './rpc-support.js';

const values = (text: string, name: string): number[] =>
  text
    .split('\n')
    .filter(line => line.startsWith(`meshpulse_${name}{`) || line.startsWith(`meshpulse_${name} `))
    .map(line => Number(line.slice(line.lastIndexOf(' ') + 1)));
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

describe('metrics', function () {
  this.timeout(30_000);
  it('are all exported, with type and help', async () => {
    const collector = await start();
    const { text } = await collector.get('/metrics');
    for (const [name, { type, help }] of Object.entries(CATALOGUE)) {
      assert.ok(text.includes(`# TYPE meshpulse_${name} ${type}\n`), name);
      assert.ok(text.includes(`# HELP meshpulse_${name} ${help}\n`), name);
    }
    await collector.stop();
  });

  it('follow the naming rules', () => {
    for (const [name, { type, labels }] of Object.entries(CATALOGUE)) {
      assert.match(name, /^[a-z][a-z_]*[a-z]$/);
      assert.equal(name.endsWith('_total'), type === 'counter', name);
      for (const label of labels) assert.doesNotMatch(label, /cuid|_id$|path/, `${name}{${label}}`);
    }
  });

  it('say what was reported', async () => {
    const collector = await start();
    await collector.report().ask({
      hello: hello({ configErrors: ['report.ratio is 7, must be 0 to 1'] }),
      batches: [batch(1, [{}, { outcome: 2, status: 503, responseFlags: 2 }, { flags: 1, peerService: 'stock.shop' }])],
      status: { inFlight: 4, queue: 2, queueSource: 'QUEUE_SOURCE_POOL' },
    });
    collector.clock.advanceMs(1500);
    const { text } = await collector.get('/metrics');
    const service = 'destination_service="payment.shop",destination_cluster="c1"';
    const lines = [
      `requests_in_flight{${service}} 4`,
      `queue_depth{${service},queue_source="pool"} 2`,
      `report_age_seconds{${service}} 1.5`,
      `instances{${service},state="live"} 1`,
      `events_total{${service},operation="GET /pay",response_code="503",grpc_response_status="",response_flags="UH",outcome="failed",kind=""} 1`,
      `event_duration_seconds_total{${service}} 0.002`,
      'external_calls_total{destination_service="stock.shop",destination_cluster="c1",operation="GET /pay",response_code="200",grpc_response_status="",response_flags="",outcome="ok"} 1',
      'calls_total{source_service="payment.shop",source_workload="payment",destination_service="stock.shop",response_code="200",grpc_response_status="",response_flags="",outcome="ok"} 1',
      'filter_config_errors_total{destination_service="payment.shop"} 1',
    ];
    for (const line of lines) assert.ok(text.includes(`meshpulse_${line}\n`), line);
    await collector.stop();
  });

  it('sum what filters count of themselves, by bounded names, and only what grew', async () => {
    const collector = await start();
    const told = (unstamped: string, extra: Plain[] = []): Plain[] => [
      { name: 'unstamped', value: unstamped },
      ...extra,
    ];
    const stream = collector.report();
    await stream.ask({ hello: hello({ counters: told('7', [{ name: 'Not A Name', value: '2' }]) }) });
    await stream.ask({ hello: hello({ counters: told('5') }) });
    await stream.ask({ hello: hello({ counters: told('9') }) });
    await stream.ask({ hello: hello({ counters: told('1'), bootEpoch: '1700000001000000' }) });
    const many = Array.from({ length: 60 }, (_, i) => ({
      name: `c_${'abcdefgh'[i >> 3]}${'abcdefgh'[i & 7]}`,
      value: '1',
    }));
    await stream.ask({ hello: hello({ counters: many, bootEpoch: '1700000002000000' }) });
    const { text } = await collector.get('/metrics');
    const service = 'destination_service="payment.shop"';
    assert.ok(text.includes(`filter_shortfalls_total{${service},reason="unstamped"} 10\n`), text);
    assert.equal(values(text, 'filter_shortfalls_total').length, 33);
    assert.ok(text.includes(`filter_shortfalls_total{${service},reason="other"} ${2 + 60 - 31}\n`), text);
    await collector.stop();
  });

  it('fold what is past the cap into other, keeping sums and never going back', async () => {
    let services = 30;
    const exporter = new Exporter(100, emit => {
      for (let i = 0; i < services; i++) emit('lives_unclean_total', [`s${i}`], i);
      for (let i = 0; i < services; i++) emit('calls_total', [`a${i}`, 'w', `b${i}`, '200', '', '', 'ok'], 2);
    });
    const render = async (): Promise<string> => (await exporter.render()).text;
    assert.equal(values(await render(), 'calls_total').length, 30);
    services = 60;
    const text = await render();
    // 30 + 30 came first; then 20 more services' lives fit below the share of edges, and 10 above it.
    assert.equal(values(text, 'lives_unclean_total').length, 60);
    assert.equal(sum(values(text, 'lives_unclean_total')), (59 * 60) / 2);
    assert.equal(values(text, 'calls_total').length, 31);
    assert.equal(sum(values(text, 'calls_total')), 120);
    assert.match(text, /calls_total\{source_service="other".*\} 60\n/);
    assert.deepEqual(values(text, 'series_overflow_total'), [30]);
    services = 40;
    assert.match(await render(), /calls_total\{source_service="other".*\} 20\n/);
  });
});
