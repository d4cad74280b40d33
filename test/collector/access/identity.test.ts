import assert from 'node:assert/strict';
import { status as Code } from '@grpc/grpc-js';
import { request } from 'node:https';
import { readFileSync } from 'node:fs';
import { copyFileSync, renameSync } from 'node:fs';
import { hello, OTHER_CUID, CUID, type Plain } from '../ingest-support.js';
import { Clients, start, until, type TestCollector } from '../rpc-support.js';
import { bearer, derUri, Folder, hashOf, spiffe, tlsClients, type Pair } from './support.js';

type Failure = Error & { code: number; details: string };

const OPERATOR = 'operator-token';

/** The call, as it ends. */
const ends = (call: Promise<Plain>): Promise<Failure | Plain> => call.catch((error: unknown) => error as Failure);

describe('identities over TLS', function () {
  this.timeout(60_000);
  const folder = new Folder();
  const clients: Clients[] = [];
  let ca: Pair;
  let otherCa: Pair;
  let collector: TestCollector;
  let operator: Clients;

  before(async () => {
    ca = folder.authority('ca');
    otherCa = folder.authority('other-ca');
    folder.certificate('server', ca, 'DNS:localhost,IP:127.0.0.1');
    folder.write(
      'access.yaml',
      `people:\n  - {name: ann, token: ${hashOf(OPERATOR)}, roles: [operator], namespaces: ['*']}\n`,
    );
    collector = await start([
      ...['--tls-cert', folder.file('server.pem'), '--tls-key', folder.file('server.key')],
      ...['--tls-client-ca', ca.cert, '--token-file', folder.file('access.yaml')],
    ]);
    operator = client(undefined, bearer(OPERATOR));
  });
  after(async () => {
    for (const one of clients) one.close();
    await collector.stop();
    folder.remove();
  });

  function client(own?: Pair, sent: Record<string, string> = {}): Clients {
    const made = tlsClients(collector.running.grpc, ca, own, sent);
    clients.push(made);
    return made;
  }

  const audit = async (actions: string[] = ['refused']): Promise<Plain[]> =>
    ((await operator.call('Rollback.ListAudit', { actions, pageSize: 1000 }))['records'] ?? []) as Plain[];

  const refusals: [string, () => [Pair | undefined, Record<string, string>], Code, RegExp][] = [
    [
      'no certificate',
      () => [undefined, {}],
      Code.UNAUTHENTICATED,
      /nothing says who you are; bring a client certificate/,
    ],
    [
      'a certificate of another CA',
      () => [folder.certificate('foreign', otherCa, `URI:${spiffe('shop')}`), {}],
      Code.UNAUTHENTICATED,
      /the client certificate does not hold: /,
    ],
    [
      'an expired certificate',
      () => [folder.certificate('expired', ca, `URI:${spiffe('shop')}`, -1), {}],
      Code.UNAUTHENTICATED,
      /the client certificate does not hold: .*expired/i,
    ],
    [
      'a NUL in its name',
      () => [folder.certificate('nul', ca, derUri(`${spiffe('shop')}\0.evil.example`)), {}],
      Code.UNAUTHENTICATED,
      /subjectAltName with characters that no name may have/,
    ],
    [
      'two names',
      () => [folder.certificate('two', ca, `URI:${spiffe('shop')},URI:${spiffe('bank')}`), {}],
      Code.UNAUTHENTICATED,
      /has 2 URIs as subjectAltName, must have one/,
    ],
    ['no name', () => [folder.certificate('none', ca, ''), {}], Code.UNAUTHENTICATED, /has no subjectAltName/],
    [
      'a name that is no SPIFFE id',
      () => [folder.certificate('odd', ca, 'URI:https://shop.example/ns/shop/sa/a'), {}],
      Code.UNAUTHENTICATED,
      /is not spiffe:\/\/TRUST-DOMAIN/,
    ],
    [
      'the right CA and another namespace',
      () => [folder.certificate('bank', ca, `URI:${spiffe('bank')}`), {}],
      Code.PERMISSION_DENIED,
      /hello\.service is "payment\.shop", spiffe:.*bank.* may report bank only/,
    ],
    [
      'a forged x-forwarded-client-cert',
      () => [undefined, { 'x-forwarded-client-cert': `By=x;URI=${spiffe('shop')}` }],
      Code.UNAUTHENTICATED,
      /x-forwarded-client-cert is not taken from 127\.0\.0\.1/,
    ],
    [
      'a forged x-forwarded-client-cert beside a certificate of its own',
      () => [
        folder.certificate('bank2', ca, `URI:${spiffe('bank', 'two')}`),
        { 'x-forwarded-client-cert': `URI=${spiffe('shop')}` },
      ],
      Code.PERMISSION_DENIED,
      /bank\/sa\/two may report bank only/,
    ],
    [
      'an unknown token',
      () => [undefined, bearer('guess')],
      Code.UNAUTHENTICATED,
      /the token is not known, or has expired/,
    ],
    [
      'an unknown token beside a good certificate',
      () => [folder.certificate('shop9', ca, `URI:${spiffe('shop')}`), bearer('guess2')],
      Code.UNAUTHENTICATED,
      /the token is not known/,
    ],
    [
      'another kind of authorization',
      () => [undefined, { authorization: 'Basic YTpi' }],
      Code.UNAUTHENTICATED,
      /as `Bearer TOKEN`/,
    ],
  ];
  for (const [what, with_, code, message] of refusals) {
    it(`refuses ${what}, with an audit record`, async () => {
      const [own, sent] = with_();
      const from = (await audit()).length;
      const asked = client(own, sent);
      const once = (await ends(asked.call('Ingest.ReportOnce', { hello: hello() }))) as Failure;
      assert.deepEqual([once.code, message.test(once.details)], [code, true], once.details);
      const stream = asked.report();
      stream.send({ hello: hello() });
      assert.equal((await stream.ended).code, code);
      const after = await audit();
      // The two calls are two records, unless the same was refused before.
      assert.ok(
        after.length > from || after.some(one => message.test(one['reason'] as string)),
        JSON.stringify(after[0]),
      );
      const record = after.find(one => message.test(one['reason'] as string))!;
      assert.match(record['actor'] as string, code === Code.UNAUTHENTICATED ? /^127\.0\.0\.1$/ : /^spiffe:/);
      assert.match(record['subject'] as string, /^Ingest\.Report/);
      const error = (await ends(operator.call('Registry.GetInstance', { cuid: CUID }))) as Failure;
      assert.equal(error.code, Code.NOT_FOUND, 'nothing of it was taken');
    });
  }

  it('takes the reports of a workload for its own namespace', async () => {
    const shop = client(folder.certificate('shop', ca, `URI:${spiffe('shop', 'pay')}`));
    await shop.call('Ingest.ReportOnce', { hello: hello() });
    const life = await operator.call('Registry.GetInstance', { cuid: CUID });
    assert.equal(life['service'], 'payment.shop');
  });

  it('lets nobody speak for a life that another workload has spoken for', async () => {
    const other = client(folder.certificate('shop-2', ca, `URI:${spiffe('shop', 'cart')}`));
    const bank = client(folder.certificate('bank-2', ca, `URI:${spiffe('bank', 'pay')}`));
    for (const [from, extra, why] of [
      [other, { proxyId: 'p2', ip: '10.0.0.8' }, /^CUID .* is that of another workload/],
      [bank, { service: 'ledger.bank', proxyId: 'p3', ip: '10.0.0.9' }, /^CUID .* is that of another workload/],
      [
        bank,
        { service: 'ledger.bank', cuid: OTHER_CUID, cuidAliases: [CUID], proxyId: 'p3' },
        /^CUID .* is that of another/,
      ],
      [bank, { service: 'ledger.bank', cuid: OTHER_CUID, ip: '10.0.0.9' }, /^proxy_id .* is that of another workload/],
    ] as const) {
      const error = (await ends(from.call('Ingest.ReportOnce', { hello: hello(extra) }))) as Failure;
      assert.deepEqual([error.code, why.test(error.details)], [Code.PERMISSION_DENIED, true], error.details);
    }
    const life = await operator.call('Registry.GetInstance', { cuid: CUID });
    assert.deepEqual([life['service'], life['state'], life['ip']], ['payment.shop', 'INSTANCE_STATE_LIVE', '10.0.0.7']);
  });

  it('ends a stream that turns to another namespace in its middle', async () => {
    const shop = client(folder.certificate('shop-3', ca, `URI:${spiffe('shop', 'stream')}`)).report();
    await shop.ask({ hello: hello({ cuid: OTHER_CUID, proxyId: 'p9', ip: '10.0.0.99' }) });
    shop.send({ hello: hello({ cuid: OTHER_CUID, proxyId: 'p9', service: 'ledger.bank' }) });
    assert.equal((await shop.ended).code, Code.PERMISSION_DENIED);
    const life = await operator.call('Registry.GetInstance', { cuid: OTHER_CUID });
    assert.equal(life['service'], 'payment.shop');
  });

  it('answers a wrong peer of TLS with nothing but an audit record', async () => {
    const plain = new Clients(collector.running.grpc);
    clients.push(plain);
    assert.equal(((await ends(plain.call('Registry.ListServices', {}))) as Failure).code, Code.UNAVAILABLE);
    const record = await until('audit of the handshake', async () =>
      (await audit()).find(one => one['subject'] === 'TLS'),
    );
    assert.match(record['reason'] as string, /TLS handshake failed/);
  });

  it('speaks TLS on HTTP, takes tokens there, and keeps metrics and health open', async () => {
    assert.equal((await get('/healthz')).code, 200);
    assert.match((await get('/metrics')).text, /meshpulse_access_refused_total\{reason="unauthenticated"\} [1-9]/);
    const end = Number(/tls_certificate_end_timestamp_seconds (\d+)/.exec((await get('/metrics')).text)?.[1]) * 1000;
    assert.ok(end > Date.now() && end < Date.now() + 3 * 24 * 3_600_000, String(end));
    const nobody = await get('/api/v1/services');
    assert.deepEqual([nobody.code, nobody.challenge], [401, 'Bearer']);
    assert.equal((await get('/api/v1/services', bearer('guess'))).code, 401);
    assert.equal((await get('/api/v1/services', bearer(OPERATOR))).code, 200);
    assert.equal((await get('/api/v1/nothing')).code, 401, 'what is there is nobody’s business either');
  });

  function get(path: string, headers = {}): Promise<{ code: number; text: string; challenge: unknown }> {
    const [host, port] = collector.running.http.split(':') as [string, string];
    return new Promise((resolve, reject) => {
      const asked = request({ host, port, path, headers, ca: readFileSync(ca.cert) }, answer => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        answer.on('end', () =>
          resolve({ code: answer.statusCode!, text, challenge: answer.headers['www-authenticate'] }),
        );
      });
      asked.on('error', reject);
      asked.end();
    });
  }

  it('takes another certificate and another CA while streams stay open', async () => {
    const own = folder.certificate('shop-4', ca, `URI:${spiffe('shop', 'long')}`);
    const cuid = `aaaaaaaa${CUID.slice(8)}`;
    const who = { cuid, proxyId: 'p-long', ip: '10.0.1.1' };
    const open = client(own).report();
    await open.ask({ hello: hello(who) });

    const next = folder.authority('next-ca');
    // Only the certificate at first: it does not fit the key, so nothing changes.
    folder.certificate('next', next, 'DNS:localhost,IP:127.0.0.1');
    renameSync(folder.file('next.pem'), folder.file('server.pem'));
    const looked = (): void => {
      collector.clock.advanceMs(1100);
      collector.running.tick();
    };
    looked();
    assert.equal(await refusedFiles(), '1');
    await client(own)
      .call('Ingest.ReportOnce', { hello: hello({ cuid: OTHER_CUID, proxyId: 'p9', ip: '10.0.0.99' }) })
      .catch((error: unknown) => assert.match((error as Failure).details, /another workload/));
    renameSync(folder.file('next.key'), folder.file('server.key'));
    copyFileSync(next.cert, folder.file('ca-file.tmp'));
    renameSync(folder.file('ca-file.tmp'), ca.cert);
    looked();
    const fresh = tlsClients(
      collector.running.grpc,
      next,
      folder.certificate('shop-5', next, `URI:${spiffe('shop', 'long')}`),
    );
    clients.push(fresh);
    await fresh.call('Ingest.ReportOnce', {
      hello: hello({ ...who, cuid: `bbbbbbbb${CUID.slice(8)}`, proxyId: 'p-new', ip: '10.0.1.2' }),
    });
    const old = tlsClients(collector.running.grpc, next, own);
    clients.push(old);
    assert.equal(
      ((await ends(old.call('Ingest.ReportOnce', { hello: hello(who) }))) as Failure).code,
      Code.UNAUTHENTICATED,
    );
    assert.ok((await open.ask({ status: { inFlight: 3 } }))['receivedUnixUs'], 'the open stream goes on');
  });

  async function refusedFiles(): Promise<string | undefined> {
    return /meshpulse_access_files_refused (\d)/.exec((await get('/metrics')).text)?.[1];
  }
});
