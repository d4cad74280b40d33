import assert from 'node:assert/strict';
import { systemClock } from '../../collector/src/clock.js';
import { Folder, hashOf, spiffe, type Pair } from '../collector/access/support.js';
import { start, type TestCollector } from '../collector/rpc-support.js';
import { meshpulse, type Ran } from './support.js';

describe('the command line and a collector that asks who it is', function () {
  this.timeout(60_000);
  const folder = new Folder();
  let ca: Pair;
  let collector: TestCollector;
  let address: string;

  before(async () => {
    ca = folder.authority('ca');
    folder.certificate('server', ca, 'DNS:localhost,IP:127.0.0.1');
    const people = [
      `  - {name: ann, token: ${hashOf('operator-token')}, roles: [operator], namespaces: ['*']}`,
      `  - {name: bob, token: ${hashOf('viewer-token')}, roles: [viewer], namespaces: [shop]}`,
    ];
    const workload = `  - {id: '${spiffe('ops', 'reader')}', roles: [viewer], namespaces: ['*']}`;
    folder.write('access.yaml', `people:\n${people.join('\n')}\nworkloads:\n${workload}\n`);
    folder.write('token', 'operator-token\n');
    collector = await start(
      [
        ...[
          '--tls-cert',
          folder.file('server.pem'),
          '--tls-key',
          folder.file('server.key'),
          '--tls-client-ca',
          ca.cert,
        ],
        ...['--token-file', folder.file('access.yaml')],
      ],
      systemClock(),
    );
    address = collector.running.grpc;
  });
  after(async () => {
    await collector.stop();
    folder.remove();
  });

  const ask = (args: string[], env: Record<string, string> = {}): Promise<Ran> =>
    meshpulse([...args, '--collector', address], env);

  it('asks by TLS with a token from a file, or from the environment', async () => {
    const byFile = await ask(['status', '--ca', ca.cert, '--token-file', folder.file('token')]);
    assert.deepEqual([byFile.code, byFile.err.includes('Warning')], [0, false], byFile.err);
    const byVariable = await ask(['status'], { MESHPULSE_CA: ca.cert, MESHPULSE_TOKEN: 'viewer-token' });
    assert.equal(byVariable.code, 0, byVariable.err);
  });

  it('asks by certificate', async () => {
    const own = folder.certificate('reader', ca, `URI:${spiffe('ops', 'reader')}`);
    const ran = await ask(['status', '--ca', ca.cert, '--cert', own.cert, '--key', own.key]);
    assert.equal(ran.code, 0, ran.err);
  });

  it('says what is missing when it is not let in; code 3', async () => {
    const env = { MESHPULSE_CA: ca.cert };
    for (const [args, more, message] of [
      [
        ['status'],
        {},
        /nothing says who you are; .*; give a token by --token-file or MESHPULSE_TOKEN, or a certificate/,
      ],
      [['observe', '-f'], {}, /nothing says who you are/],
      [['status'], { MESHPULSE_TOKEN: 'wrong' }, /the token is not known.*; check the token of --token-file/],
      [
        ['rollback', 'kill', '--reason', 'x'],
        { MESHPULSE_TOKEN: 'viewer-token' },
        /bob has the role viewer, Rollback\.Kill takes the role operator; ask whoever runs it for a role that may/,
      ],
    ] as [string[], Record<string, string>, RegExp][]) {
      const ran = await ask(args, { ...env, ...more });
      assert.deepEqual([ran.code, ran.out], [3, ''], ran.err);
      assert.match(ran.err, message);
      assert.doesNotMatch(ran.err, /wrong[^ ]|viewer-token/, 'a token is never shown');
    }
  });

  it('says when TLS does not fit; code 3', async () => {
    const plain = await ask(['status']);
    assert.equal(plain.code, 3);
    assert.match(plain.err, /; if it speaks TLS, give --ca/);
    const other = folder.authority('other');
    const untrusted = await ask(['status', '--ca', other.cert]);
    assert.equal(untrusted.code, 3);
    assert.match(untrusted.err, /its certificate is not trusted .*; give the CA that signed it by --ca/);
    const clear = await start();
    const ran = await meshpulse(['status', '--ca', ca.cert, '--collector', clear.running.grpc]);
    await clear.stop();
    assert.equal(ran.code, 3);
    assert.match(ran.err, /it does not speak TLS; give --plaintext/);
  });

  for (const [args, message] of [
    [['status', '--cert', 'a.pem'], /--cert and --key go together; --key is missing/],
    [['status', '--plaintext', '--ca', 'a.pem'], /--plaintext goes without --ca, --cert and --key/],
    [['status', '--token-file', '/nowhere'], /--token-file \/nowhere cannot be read: ENOENT/],
    [['status', '--ca', '/nowhere'], /--ca \/nowhere cannot be read: ENOENT/],
    [['rollback', 'audit', '--action', 'kil'], /--action is "kil", must be one of .*; did you mean kill\?/],
  ] as [string[], RegExp][]) {
    it(`refuses ${args.join(' ')}`, async () => {
      const ran = await meshpulse(args);
      assert.equal(ran.code, 2, ran.err);
      assert.match(ran.err, message);
    });
  }

  it('shows who changed what, under the name that they proved, and who was refused', async () => {
    const operator = { MESHPULSE_CA: ca.cert, MESHPULSE_TOKEN: 'operator-token' };
    const killed = await ask(['rollback', 'kill', 'namespace/shop', '--reason', 'a test'], operator);
    assert.equal(killed.code, 0, killed.err);
    const done = await ask(['rollback', 'audit', '--action', 'kill'], operator);
    assert.match(
      done.out,
      /^AT +ACTION +BY +SUBJECT +WHY +RESULT\n\S+ +kill +ann +namespace\/shop +a test +0 proxies told/,
    );
    const all = await ask(['rollback', 'audit', '-o', 'json', '--since', '5m'], operator);
    const { records } = JSON.parse(all.out) as { records: { action: string; actor: string }[] };
    assert.ok(records.some(({ action, actor }) => action === 'refused' && actor === 'bob'));
  });
});
