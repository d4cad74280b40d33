import assert from 'node:assert/strict';
import { readConfig, type Config } from '../../collector/src/config.js';
import { parseRedis, redacted } from '../../collector/src/store/redis/address.js';
import { faultOf } from '../../collector/src/store/redis/faults.js';

const FILES: Record<string, string> = { '/pw': 'from-file\n', '/ca.pem': 'CA', '/cert.pem': 'CERT', '/key.pem': 'KEY' };
const readFile = (path: string): string => {
  const text = FILES[path];
  if (text === undefined) throw new Error('ENOENT: no such file');
  return text;
};
const read = (args: readonly string[], env: Record<string, string> = {}): Config => readConfig(args, env, readFile);

function store(args: readonly string[], env: Record<string, string> = {}): Config['store'] & { type: 'redis' } {
  const { store } = read(args, env);
  assert.equal(store.type, 'redis');
  return store;
}

describe('settings of a store in Redis', () => {
  const addresses: [string, Partial<ReturnType<typeof parseRedis>>][] = [
    ['redis://h', { cluster: false, tls: false, nodes: [{ host: 'h', port: 6379 }] }],
    ['redis://h:1/3', { nodes: [{ host: 'h', port: 1 }], db: 3 }],
    ['rediss://[::1]:7', { tls: true, nodes: [{ host: '::1', port: 7 }] }],
    ['redis://u:p%40%2F@h', { user: 'u', password: 'p@/' }],
    ['redis://:p@h', { user: '', password: 'p' }],
    [
      'redis-cluster://a:1,b:2',
      {
        cluster: true,
        nodes: [
          { host: 'a', port: 1 },
          { host: 'b', port: 2 },
        ],
      },
    ],
    ['rediss-cluster://u@a:1', { cluster: true, tls: true, user: 'u' }],
  ];
  for (const [text, expected] of addresses) {
    it(`read ${text}`, () => {
      const parsed: Record<string, unknown> = { ...parseRedis(text) };
      for (const [name, value] of Object.entries(expected)) assert.deepEqual(parsed[name], value, name);
    });
  }

  const refused: [string, string[], Record<string, string>, RegExp][] = [
    ['no host', ['--store', 'redis://'], {}, /^--store is "redis:\/\/", must be redis:\/\/HOST:PORT or redis-cluster/],
    ['several hosts without a cluster', ['--store', 'redis://127.0.0.1,127.0.0.2'], {}, /several are redis-cluster:/],
    ['a port that is none', ['--store', 'redis://h:70000'], {}, /must be HOST:PORT where it says "h:70000"/],
    ['a database in a cluster', ['--store', 'redis-cluster://h:1/2'], {}, /a cluster has only 0/],
    ['a bad escape', ['--store', 'redis://u:secret%@h'], {}, /"redis:\/\/u:\*\*\*@h".*%25/],
    [
      'a prefix with a tag',
      ['--store', 'redis://127.0.0.1', '--redis-prefix', 'a{b}'],
      {},
      /^--redis-prefix is "a\{b\}", must/,
    ],
    [
      'another host without credentials',
      ['--store', 'redis://db.example'],
      {},
      /db\.example is not this machine.*--insecure-redis$/,
    ],
    [
      'a password as an option',
      ['--store', 'redis://127.0.0.1', '--redis-password', 'secret'],
      {},
      /list of processes/,
    ],
    ['a password for all to see, of a store that has none', ['--redis-password', 'secret'], {}, /list of processes/],
    ['copies that no Redis has', ['--redis-wait', '99'], {}, /^--redis-wait is "99", must be 0 to 16$/],
    [
      'two passwords',
      ['--store', 'redis://:a@127.0.0.1'],
      { MESHPULSE_REDIS_PASSWORD: 'b' },
      /password of the store is given twice/,
    ],
    [
      'a missing file',
      ['--store', 'redis://127.0.0.1', '--redis-password-file', '/none'],
      {},
      /^--redis-password-file \/none cannot be read/,
    ],
    [
      'TLS files without TLS',
      ['--store', 'redis://127.0.0.1', '--redis-ca', '/ca.pem'],
      {},
      /write --store rediss:\/\/127/,
    ],
    ['half a certificate', ['--store', 'rediss://127.0.0.1', '--redis-cert', '/cert.pem'], {}, /belong together/],
    ['a folder as well', ['--store', 'redis://127.0.0.1', '--data-dir', '/d'], {}, /^--data-dir is for --store memory/],
  ];
  for (const [what, args, env, message] of refused) {
    it(`refuse ${what} in one line, without the password`, () => {
      assert.throws(
        () => read(args, env),
        (error: Error) => {
          assert.match(error.message, message);
          assert.doesNotMatch(error.message, /secret|\n/);
          return true;
        },
      );
    });
  }

  it('take the password from where it does not show, and show it nowhere', () => {
    const config = read(['--store', 'rediss://u:secret@db.example:7'], { MESHPULSE_REDIS_USER: 'u' });
    assert.equal(config.effective['store'], 'rediss://u:***@db.example:7');
    assert.doesNotMatch(JSON.stringify(config.effective), /secret/);
    assert.equal(store(['--store', 'redis://h', '--redis-password-file', '/pw']).access.password, 'from-file');
    const fromEnvironment = read(['--store', 'redis://h'], { MESHPULSE_REDIS_PASSWORD: 'secret' });
    assert.doesNotMatch(JSON.stringify(fromEnvironment.effective), /secret/);
    assert.equal((fromEnvironment.store as { access: { password: string } }).access.password, 'secret');
  });

  it('take certificates for TLS, which are credentials too', () => {
    const args = ['--redis-ca', '/ca.pem', '--redis-cert', '/cert.pem', '--redis-key', '/key.pem'];
    assert.deepEqual(store(['--store', 'rediss://h', ...args]).access.tls, { ca: 'CA', cert: 'CERT', key: 'KEY' });
    assert.deepEqual(store(['--store', 'rediss://127.0.0.1']).access.tls, {});
  });

  it('leave nothing of a password in an address that is shown, whatever is wrong with it', () => {
    for (const text of ['redis://u:secret@h', 'redis://:secret@h', 'redis://u:se:cr@h', 'redis://secret:@']) {
      assert.doesNotMatch(redacted(text).replace(/^redis:\/\/secret/, ''), /secret|se:cr/);
    }
    for (const text of ['redis://u:p@secret@h', 'redis://u@v:secret@h', 'redis:/u:secret@h', 'REDIS://u:secret@h/9']) {
      assert.throws(
        () => read(['--store', text]),
        ({ message }: Error) => /^--store is .*@h/.test(message) && !/secret/.test(message),
        text,
      );
    }
  });

  const faults: [string, string, boolean][] = [
    ['WRONGPASS invalid username-password pair or user is disabled.', 'wrong password', true],
    ['NOAUTH Authentication required.', 'no password', true],
    ["NOPERM this user has no permissions to run the 'evalsha' command", 'no permission', true],
    ['ERR This instance has cluster support disabled', 'not a cluster', true],
    ["OOM command not allowed when used memory > 'maxmemory'.", 'full', false],
    ["READONLY You can't write against a read only replica.", 'read-only', false],
    ['CLUSTERDOWN The cluster is down', 'down', false],
    ['Command timed out', 'hangs', false],
    ['connect ECONNREFUSED 127.0.0.1:1', 'away', false],
  ];
  for (const [message, kind, settled] of faults) {
    it(`name the fault of "${message.slice(0, 30)}"`, () => {
      const fault = faultOf(new Error(message));
      assert.deepEqual([fault.kind, fault.settled], [kind, settled]);
      const wrapped = Object.assign(new Error('Failed to refresh slots cache.'), { lastNodeError: new Error(message) });
      assert.equal(faultOf(wrapped).kind, kind);
    });
  }
});
