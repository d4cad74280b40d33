import assert from 'node:assert/strict';
import { CliError } from '../../cli/src/errors.js';
import type { Flow, FlowEdge } from '../../cli/src/messages.js';
import { didYouMean } from '../../collector/src/near.js';
import { table } from '../../cli/src/table.js';
import { age, parseMoment, parseSpan, span } from '../../cli/src/times.js';
import { tree } from '../../cli/src/tree.js';

const NOW = Date.parse('2026-01-31T12:00:00Z');

describe('times on the command line', () => {
  for (const [text, ms] of [
    ['500ms', 500],
    ['5s', 5000],
    ['1.5s', 1500],
    ['5m', 300_000],
    ['1h30m', 5_400_000],
    ['2d', 172_800_000],
  ] as const) {
    it(`reads ${text}`, () => assert.equal(parseSpan(text, '--since'), ms));
  }

  for (const text of ['', '5', 's', '5x', '5 m', '-5m', '5m!', '1e3s']) {
    it(`refuses "${text}" as a duration, naming the option`, () => {
      assert.throws(
        () => parseSpan(text, '--since'),
        (error: CliError) => error.exitCode === 2 && error.message.startsWith(`--since is "${text}", must be`),
      );
    });
  }

  it('reads moments as RFC 3339 or as time ago', () => {
    assert.equal(parseMoment('2026-01-31T12:00:00Z', '--at', NOW), NOW);
    assert.equal(parseMoment('2026-01-31T13:00:00.5+01:00', '--at', NOW), NOW + 500);
    assert.equal(parseMoment('5m', '--at', NOW), NOW - 300_000);
    for (const text of ['yesterday', '2026-01-31', '2026-13-31T12:00:00Z', '12:00', '']) {
      assert.throws(() => parseMoment(text, '--at', NOW), CliError, text);
    }
  });

  for (const [ms, text] of [
    [-5, '0s'],
    [8000, '8s'],
    [119_000, '119s'],
    [330_000, '5m30s'],
    [3_600_000, '60m'],
    [5 * 3_600_000 + 60_000, '5h1m'],
    [26 * 3_600_000, '26h'],
    [5 * 86_400_000, '5d'],
  ] as const) {
    it(`shows an age of ${ms} ms as ${text}`, () => assert.equal(age(ms), text));
  }

  it('shows durations with as many digits as help', () => {
    assert.deepEqual([0.84, 12.3, 1234, 150_000].map(span), ['0.8ms', '12ms', '1.2s', '2m30s']);
  });
});

describe('tables', () => {
  it('have upper-case headers, three spaces between columns, and nothing at the end of a line', () => {
    assert.equal(
      table(
        ['NAME', 'AGE'],
        [
          ['a-long-name', '5d'],
          ['b', ''],
        ],
      ),
      'NAME          AGE\na-long-name   5d\nb\n',
    );
  });

  it('are measured without colours', () => {
    const red = (text: string): string => `<${text}>`;
    assert.equal(table(['A', 'B'], [[{ text: 'xx', paint: red }, 'y']]), 'A    B\n<xx>   y\n');
  });
});

describe('did you mean', () => {
  it('names what is close, and nothing else', () => {
    const known = ['payment.store', 'stock.store', 'mail.store'];
    assert.equal(didYouMean('payment', known), '; did you mean payment.store?');
    assert.equal(didYouMean('stcok.store', known), '; did you mean stock.store?');
    assert.equal(didYouMean('zzz', known), '');
  });
});

describe('the tree of a flow', () => {
  const edge = (from: string, to: string, order: number, more: Partial<FlowEdge> = {}): FlowEdge => ({
    fromService: from,
    fromOperation: 'GET /',
    toService: to,
    toOperation: 'GET /',
    order,
    callsMean: 1,
    parallel: false,
    loop: false,
    failures: '0',
    attemptsMean: 1,
    ...more,
  });
  const flow = (edges: FlowEdge[], names: string[]): Flow => ({
    kind: 'a GET /',
    transactions: '5',
    transactionsAbstained: '0',
    singleEntryRatio: 1,
    edges,
    steps: names.map(service => ({
      service,
      operation: 'GET /',
      transactions: '5',
      events: '5',
      failures: '0',
      durationMsP50: 4,
      durationMsP99: 1500,
      external: service === 'ext',
    })),
  });

  it('shows order, fan-out, loops, retries and failures', () => {
    const drawn = tree(
      flow(
        [
          edge('a', 'b', 1, { callsMean: 3 }),
          edge('a', 'c', 2, { parallel: true }),
          edge('a', 'ext', 2, { parallel: true, failures: '2', attemptsMean: 1.5 }),
          edge('b', 'd', 1),
          edge('c', 'd', 1),
          edge('d', 'e', 1),
          edge('d', 'a', 2, { loop: true }),
        ],
        ['a', 'b', 'c', 'd', 'e', 'ext'],
      ),
    );
    assert.deepEqual(drawn.replaceAll('p50 4.0ms, p99 1.5s', 'T').split('\n'), [
      '├─ 1 b GET /                         T   x3',
      '│  └─ 1 d GET /                      T',
      '│     ├─ 1 e GET /                   T',
      '│     └─ 2 a GET / (back to above)   T',
      '├─ 2 c GET /                         T   parallel',
      '│  └─ 1 d GET / (drawn above)        T',
      '└─ 2 ext GET /                       T   parallel, 1.5 attempts, external, 2 failed',
      '',
    ]);
  });

  it('shows what hangs below nothing apart', () => {
    assert.deepEqual(
      tree(flow([edge('x', 'y', 1)], ['a', 'x', 'y']))
        .replaceAll('   p50 4.0ms, p99 1.5s', '')
        .split('\n')
        .map(line => line.trimEnd()),
      ['seen, but not below the entry (their caller was not reported):', '   x GET /', '   └─ 1 y GET /', ''],
    );
  });
});
