import assert from 'node:assert/strict';
import { credentials, status as Code } from '@grpc/grpc-js';
import { readFileSync, renameSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { ManualClock } from '../../../collector/src/clock.js';
import { openLog } from '../../../collector/src/log.js';
import { ASKING_MAX, NO_MS, readAnswer, TokenReview, YES_MS } from '../../../collector/src/access/token-review.js';
import { CUID, hello, type Plain } from '../ingest-support.js';
import { Clients, start, type TestCollector } from '../rpc-support.js';
import { bearer, Folder, hashOf, spiffe } from './support.js';

type Failure = Error & { code: number; details: string };

const failure = (call: Promise<unknown>): Promise<Failure> =>
  call.then(
    () => assert.fail('it was answered'),
    (error: unknown) => error as Failure,
  );

/** An API server of a cluster: TLS, and TokenReview. */
class FakeCluster {
  readonly asked: { token: string; audiences?: string[]; authorization?: string | undefined }[] = [];
  /** By token; a number is a status to fail with. */
  readonly accounts = new Map<string, Plain | number>();
  /** Held back until it settles. */
  hold: Promise<void> | undefined;
  private readonly server: Server;

  constructor(folder: Folder) {
    this.server = createServer(
      { cert: readFileSync(folder.file('api.pem')), key: readFileSync(folder.file('api.key')) },
      (request, response) => {
        let text = '';
        request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        request.on('end', () => {
          const { spec } = JSON.parse(text) as { spec: { token: string; audiences?: string[] } };
          this.asked.push({ ...spec, authorization: request.headers.authorization });
          const account =
            request.url === '/apis/authentication.k8s.io/v1/tokenreviews' ? this.accounts.get(spec.token) : 404;
          void (this.hold ?? Promise.resolve()).then(() => {
            response.statusCode = typeof account === 'number' ? account : 201;
            response.end(JSON.stringify({ status: account ?? { authenticated: false, error: 'invalid' } }));
          });
        });
      },
    );
  }

  async open(): Promise<string> {
    await new Promise<void>(resolve => this.server.listen(0, '127.0.0.1', resolve));
    return `https://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise(resolve => this.server.close(resolve));
  }
}

const account = (username: string, groups: string[], extra = {}, audiences = ['meshpulse']): Plain => ({
  authenticated: true,
  user: { username, groups, extra },
  audiences,
});

describe('tokens', function () {
  this.timeout(60_000);
  const folder = new Folder();
  const clients: Clients[] = [];
  let cluster: FakeCluster;
  let collector: TestCollector;

  before(async () => {
    const ca = folder.authority('ca');
    folder.certificate('api', ca, 'IP:127.0.0.1');
    folder.write('own-token', 'the-collectors-own\n');
    folder.write(
      'access.yaml',
      [
        `people:\n  - {name: ann, token: ${hashOf('t-ann')}, roles: [operator], namespaces: ['*']}`,
        `users:\n  - {name: dana, roles: [viewer], namespaces: [shop]}`,
        `groups:\n  - {name: sre, roles: [viewer], namespaces: [bank]}\n  - {name: bank-admins, roles: [operator], namespaces: [shop]}`,
        '  - {name: agents, roles: [agent]}\n',
      ].join('\n'),
    );
    cluster = new FakeCluster(folder);
    const url = await cluster.open();
    collector = await start([
      ...['--token-file', folder.file('access.yaml'), '--token-review', url, '--token-review-ca', ca.cert],
      ...['--token-review-token', folder.file('own-token'), '--token-review-audience', 'meshpulse'],
      ...['--trust-xfcc', '127.0.0.1', '--trust-domain', 'cluster.local,other.example'],
    ]);
  });
  after(async () => {
    for (const one of clients) one.close();
    await collector.stop();
    await cluster.close();
    folder.remove();
  });

  function as(sent: Record<string, string>): Clients {
    const made = new Clients(collector.running.grpc, credentials.createInsecure(), sent);
    clients.push(made);
    return made;
  }

  const services = (who: Clients): Promise<Plain> => who.call('Registry.ListServices', {});

  it('of a cluster are reviewed with the token of the collector, for their audience, and remembered', async () => {
    cluster.accounts.set('k-dana', account('dana', ['system:authenticated']));
    await services(as(bearer('k-dana')));
    await services(as(bearer('k-dana')));
    assert.deepEqual(
      cluster.asked.filter(one => one.token === 'k-dana'),
      [{ token: 'k-dana', audiences: ['meshpulse'], authorization: 'Bearer the-collectors-own' }],
    );
  });

  it('of the file are not shown to the cluster', async () => {
    await services(as(bearer('t-ann')));
    assert.ok(!cluster.asked.some(({ token }) => token === 't-ann'));
  });

  it('are refused when nobody has them, when they are for others, and when nothing is said of their account', async () => {
    cluster.accounts.set('k-other', account('dana', [], {}, ['https://kubernetes.default.svc']));
    cluster.accounts.set('k-stranger', account('stranger', ['system:authenticated']));
    assert.equal((await failure(services(as(bearer('k-nobody'))))).code, Code.UNAUTHENTICATED);
    assert.equal((await failure(services(as(bearer('k-other'))))).code, Code.UNAUTHENTICATED);
    const stranger = await failure(services(as(bearer('k-stranger'))));
    assert.deepEqual(
      [stranger.code, stranger.details],
      [Code.PERMISSION_DENIED, 'stranger has no role, Registry.ListServices takes the role viewer or operator'],
    );
  });

  it('are told to come back when the cluster cannot say, which is no refusal', async () => {
    cluster.accounts.set('k-broken', 500);
    const { code, details } = await failure(services(as(bearer('k-broken'))));
    assert.deepEqual([code, details], [Code.UNAVAILABLE, 'tokens cannot be reviewed now; try again in a few seconds']);
    cluster.accounts.set('k-broken', account('dana', []));
    await services(as(bearer('k-broken')));
  });

  it('give each role for its own namespaces, whatever groups come together', async () => {
    cluster.accounts.set('k-both', account('eve', ['sre', 'bank-admins']));
    const eve = as(bearer('k-both'));
    const kill = (scope: string): Promise<Plain> =>
      eve.call('Rollback.Kill', { scope, reason: 'a test', dryRun: true });
    await kill('namespace/shop');
    assert.equal(
      (await failure(kill('namespace/bank'))).code,
      Code.PERMISSION_DENIED,
      'viewer there, operator elsewhere',
    );
    assert.equal((await failure(kill('mesh'))).code, Code.PERMISSION_DENIED);
  });

  it('of agents speak for the node that they are bound to', async () => {
    cluster.accounts.set(
      'k-agent',
      account('agent-1', ['agents'], { 'authentication.kubernetes.io/node-name': ['node-1'] }),
    );
    cluster.accounts.set('k-unbound', account('agent-2', ['agents']));
    const report = (token: string, extra: Plain): Promise<Plain> =>
      as(bearer(token)).call('Ingest.ReportOnce', { hello: hello(extra) });
    await report('k-agent', {});
    const elsewhere = await failure(report('k-agent', { node: 'node-2' }));
    assert.match(elsewhere.details, /^hello\.node is "node-2", agent-1 is the agent of "node-1"$/);
    assert.match((await failure(report('k-unbound', {}))).details, /agent-2 is an agent of no known node/);
  });

  it('are known anew when their file changes, and as before while it is wrong', async () => {
    const change = (text: string): void => {
      renameSync(folder.write('access.new', text), folder.file('access.yaml'));
      collector.clock.advanceMs(1100);
      collector.running.tick();
    };
    const before = readFileSync(folder.file('access.yaml'), 'utf8');
    const gauge = async (): Promise<string | undefined> =>
      /access_files_refused (\d)/.exec((await collector.get('/metrics')).text)?.[1];
    change(`${before}peple: []\n`);
    assert.equal(await gauge(), '1');
    await services(as(bearer('t-ann')));
    change(before.replace(hashOf('t-ann'), hashOf('t-ann-2')));
    assert.equal(await gauge(), '0');
    cluster.accounts.delete('t-ann');
    assert.equal((await failure(services(as(bearer('t-ann'))))).code, Code.UNAUTHENTICATED);
    await services(as(bearer('t-ann-2')));
    change(before);
  });

  it('that are taken back or changed end the streams that they opened, and no others', async () => {
    cluster.accounts.set('k-watch', account('dana', []));
    const opened = ['t-ann', 'k-watch'].map(token => {
      const stream = as(bearer(token)).stream('Registry.WatchStatus', {});
      const ended = new Promise<Failure>(resolve => stream.on('error', resolve));
      const synced = new Promise<void>(resolve =>
        stream.on('data', ({ synced: all }: Plain) => all === true && resolve()),
      );
      return { ended, synced };
    });
    await Promise.all(opened.map(({ synced }) => synced));
    const [ann, dana] = opened as [(typeof opened)[number], (typeof opened)[number]];
    const before = readFileSync(folder.file('access.yaml'), 'utf8');
    const put = (text: string, ms = 1100): void => {
      renameSync(folder.write('access.new', text), folder.file('access.yaml'));
      collector.clock.advanceMs(ms);
      collector.running.tick();
    };
    put(
      before.replace(
        'name: dana, roles: [viewer], namespaces: [shop]',
        'name: dana, roles: [viewer], namespaces: [bank]',
      ),
    );
    const narrowed = await dana.ended;
    assert.deepEqual(
      [narrowed.code, narrowed.details],
      [Code.ABORTED, 'what you may see or do has changed; call again'],
    );
    put(before.replace(hashOf('t-ann'), hashOf('t-ann-3')));
    assert.equal((await ann.ended).code, Code.UNAUTHENTICATED);
    put(before);
    const again = as(bearer('k-watch')).stream('Registry.WatchStatus', {});
    const ended = new Promise<Failure>(resolve => again.on('error', resolve));
    await new Promise<void>(resolve => again.on('data', ({ synced }: Plain) => synced === true && resolve()));
    cluster.accounts.delete('k-watch');
    collector.clock.advanceMs(YES_MS);
    collector.running.tick();
    assert.equal((await ended).code, Code.UNAUTHENTICATED, 'the cluster took it back');
  });

  it('are not looked at again for a stream that ended while they were reviewed', async () => {
    cluster.accounts.set('k-hasty', account('dana', []));
    let release = (): void => undefined;
    cluster.hold = new Promise(resolve => (release = resolve));
    const asked = (): number => cluster.asked.filter(({ token }) => token === 'k-hasty').length;
    const stream = as(bearer('k-hasty')).stream('Registry.WatchStatus', {});
    stream.on('error', () => undefined);
    while (asked() === 0) await new Promise(resolve => setTimeout(resolve, 5));
    stream.cancel();
    // The next call on the same server shows that the end of the one before has arrived.
    await services(as(bearer('t-ann')));
    await new Promise(resolve => setTimeout(resolve, 50));
    cluster.hold = undefined;
    release();
    await services(as(bearer('k-hasty')));
    collector.clock.advanceMs(YES_MS);
    collector.running.tick();
    await new Promise(resolve => setTimeout(resolve, 100));
    assert.equal(asked(), 1);
  });

  it('are not needed where the own sidecar says who it is, by the last element only', async () => {
    const own = { proxyId: 'p-x', cuid: `eeeeeeee${CUID.slice(8)}`, ip: '10.0.7.7' };
    const report = (header: string, extra: Plain = {}): Promise<Plain> =>
      as({ 'x-forwarded-client-cert': header }).call('Ingest.ReportOnce', { hello: hello({ ...own, ...extra }) });
    await report(`By=x;URI=${spiffe('bank')},By=y;Subject="";URI=${spiffe('shop')}`);
    const forged = await failure(report(`By=x;URI=${spiffe('shop')},By=y;Subject="";URI=${spiffe('bank')}`));
    assert.deepEqual([forged.code, /may report bank only/.test(forged.details)], [Code.PERMISSION_DENIED, true]);
    assert.equal((await failure(report('By=x;Hash=1'))).code, Code.UNAUTHENTICATED);
    const foreign = await failure(report(`URI=${spiffe('shop').replace('cluster.local', 'evil.example')}`));
    assert.match(foreign.details, /of the trust domain evil\.example, which is none of --trust-domain/);
  });
});

describe('reviews of tokens', function () {
  this.timeout(30_000);
  const folder = new Folder();
  const clock = new ManualClock();
  let cluster: FakeCluster;
  let review: TokenReview;
  let url: string;

  before(async () => {
    const ca = folder.authority('ca');
    folder.certificate('api', ca, 'IP:127.0.0.1');
    cluster = new FakeCluster(folder);
    url = await cluster.open();
    const settings = { url, ca: ca.cert, audience: '' };
    review = new TokenReview(settings, () => clock.monotonicMs(), openLog('silent'));
  });
  after(async () => {
    await cluster.close();
    folder.remove();
  });

  const times = (token: string): number => cluster.asked.filter(one => one.token === token).length;

  it('hold for a while, a refusal for less', async () => {
    cluster.accounts.set('yes', account('dana', ['a']));
    assert.deepEqual(await review.review('yes'), { user: 'dana', groups: ['a'] });
    assert.equal(await review.review('no'), undefined);
    clock.advanceMs(NO_MS - 1);
    await Promise.all([review.review('yes'), review.review('no')]);
    assert.deepEqual([times('yes'), times('no')], [1, 1]);
    clock.advanceMs(2);
    await Promise.all([review.review('yes'), review.review('no')]);
    assert.deepEqual([times('yes'), times('no')], [1, 2]);
    clock.advanceMs(YES_MS);
    cluster.accounts.delete('yes');
    assert.equal(await review.review('yes'), undefined, 'taken back');
  });

  it('of one token are asked once, and of many a few at a time', async () => {
    let release = (): void => undefined;
    cluster.hold = new Promise(resolve => (release = resolve));
    const same = Promise.all([review.review('same'), review.review('same')]);
    const others = Array.from({ length: ASKING_MAX + 4 }, (_, n) =>
      review.review(`made up ${n}`).catch((error: unknown) => (error as Error).name),
    );
    release();
    cluster.hold = undefined;
    await same;
    assert.equal(times('same'), 1);
    const refused = (await Promise.all(others)).filter(name => name === 'Unavailable');
    assert.equal(refused.length, 5);
  });

  it('trust only the CA that they were given', async () => {
    const other = folder.authority('other');
    const settings = { url, ca: other.cert, audience: '' };
    const untrusting = new TokenReview(settings, () => clock.monotonicMs(), openLog('silent'));
    await assert.rejects(untrusting.review('yes'), { name: 'Unavailable' });
  });

  for (const [what, answer, expected] of [
    ['is none', 'x', /its answer has no status/],
    ['says nothing of a user', { status: { authenticated: true } }, /its answer names no user/],
    ['says yes by a text', { status: { authenticated: 'true', user: { username: 'a' } } }, undefined],
    ['says no', { status: { authenticated: false, user: { username: 'a' } } }, undefined],
    ['names no audience', { status: { authenticated: true, user: { username: 'a' } } }, undefined],
  ] as [string, unknown, RegExp | undefined][]) {
    it(`let nobody in by an answer that ${what}`, () => {
      if (expected === undefined) assert.equal(readAnswer(answer, 'meshpulse'), undefined);
      else assert.throws(() => readAnswer(answer, ''), expected);
    });
  }
});

describe('a collector whose access cannot be set up', function () {
  this.timeout(30_000);
  const folder = new Folder();
  after(() => folder.remove());

  it('does not start, and names setting, file and remedy', async () => {
    const ca = folder.authority('ca');
    const [one, two] = [folder.certificate('one', ca, 'DNS:a'), folder.certificate('two', ca, 'DNS:b')];
    const file = folder.write('access.yaml', 'people:\n  - {name: ann}\n');
    const tls = (cert: string, key: string): string[] => ['--tls-cert', cert, '--tls-key', key];
    for (const [args, message] of [
      [['--token-file', '/nowhere'], /^--token-file \/nowhere: ENOENT/],
      [['--token-file', file], /^--token-file .*access\.yaml: line 2: people\[0\]\.token is missing/],
      [tls('/nowhere', one.key), /^--tls-cert \/nowhere cannot be used \(ENOENT.*\); give a file in PEM$/],
      [tls(file, one.key), /^--tls-cert .*access\.yaml cannot be used/],
      [tls(one.cert, two.key), /^--tls-key .* is not the key of --tls-cert .*; give the two that belong together$/],
      [[...tls(one.cert, one.key), '--tls-client-ca', file], /^--tls-client-ca .* cannot be used/],
    ] as [string[], RegExp][]) {
      await assert.rejects(start(args), { name: 'ConfigError', message });
    }
  });
});
