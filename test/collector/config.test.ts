import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readConfig, variableOf, type Config } from '../../collector/src/config.js';
import { metricsTable } from '../../collector/src/metrics/catalogue.js';
import { PROTOS } from '../../collector/src/paths.js';
import { SETTINGS, settingsTable } from '../../collector/src/settings.js';

const none = (): string => {
  throw new Error('ENOENT: no such file');
};
const read = (args: readonly string[] = [], env: Record<string, string> = {}, file?: string): Config =>
  readConfig(file === undefined ? args : ['--config', 'c.yaml', ...args], env, file === undefined ? none : () => file);

describe('settings', () => {
  it('have defaults that are valid', () => {
    const config = read();
    assert.deepEqual(
      [config.grpc, config.http],
      [
        { host: '127.0.0.1', port: 50051 },
        { host: '127.0.0.1', port: 9464 },
      ],
    );
    assert.deepEqual(
      [config.retainLivesMs, config.dataDirBytesMax, config.dataDir],
      [2_592_000_000, 268_435_456, undefined],
    );
  });

  it('come from flags, then the environment, then the file', () => {
    const env = { MESHPULSE_LOG_LEVEL: 'warn', MESHPULSE_STREAMS_MAX: '5' };
    const file = 'log-level: error\nstreams-max: 6\ntransactions-max: 700\n';
    const config = read(['--log-level=debug'], env, file);
    assert.deepEqual([config.logLevel, config.streamsMax, config.transactionsMax], ['debug', 5, 700]);
  });

  it('take flags without a value and addresses of IPv6', () => {
    const config = read(['--insecure', '--grpc', '[::]:50051', '--http', '0.0.0.0:9464']);
    assert.deepEqual([config.insecure, config.grpc.host], [true, '::']);
  });

  const refused: [string, string[], Record<string, string>, string | undefined, string | RegExp][] = [
    ['an unknown option', ['--grcp', 'x'], {}, undefined, '--grcp is not a known option; did you mean grpc?'],
    ['a word that is no option', ['now'], {}, undefined, /^now is not a known option/],
    [
      'an unknown key',
      [],
      {},
      'retain-live: 1d',
      'retain-live in c.yaml is not a known key; did you mean retain-lives or retain-lives-max?',
    ],
    ['a nested key', [], {}, 'grpc:\n  host: x', 'grpc in c.yaml is not a single value; write grpc: VALUE'],
    ['a list', [], {}, '- grpc', '--config c.yaml is not a list of settings; write one NAME: VALUE a line'],
    ['broken YAML', [], {}, 'a: "', /^--config c\.yaml: /],
    ['a missing file', ['--config', 'x.yaml'], {}, undefined, /^--config x\.yaml cannot be read \(ENOENT/],
    ['no value', ['--grpc'], {}, undefined, '--grpc has no value; write --grpc VALUE'],
    [
      'a value twice',
      ['--http', '127.0.0.1:1', '--http', '127.0.0.1:2'],
      {},
      undefined,
      '--http is given twice; give it once',
    ],
    [
      'a bad address',
      ['--http', '9464'],
      {},
      undefined,
      '--http is "9464", must be HOST:PORT; write it like 127.0.0.1:50051 or [::1]:50051',
    ],
    ['a bad port', ['--http', '127.0.0.1:70000'], {}, undefined, /^--http is "127\.0\.0\.1:70000"/],
    [
      'a number out of range',
      [],
      { MESHPULSE_STREAMS_MAX: '0' },
      undefined,
      'MESHPULSE_STREAMS_MAX is "0", must be 1 to 1000000',
    ],
    [
      'a time without unit',
      ['--drain-time', '5'],
      {},
      undefined,
      '--drain-time is "5", must be 0ms to 10m; write it like 30s or 15m',
    ],
    [
      'a size too small',
      [],
      {},
      'message-bytes-max: 1KiB',
      'message-bytes-max in the file is "1KiB", must be 64KiB to 64MiB; write it like 64KiB or 4MiB',
    ],
    [
      'a level that is none',
      ['--log-level', 'loud'],
      {},
      undefined,
      '--log-level is "loud", must be trace, debug, info, warn, error, silent',
    ],
    [
      'an open address',
      ['--grpc', '0.0.0.0:50051'],
      {},
      undefined,
      /^--grpc is "0\.0\.0\.0:50051", must be a loopback address .* --insecure$/,
    ],
    [
      'a store that is none',
      ['--store', 'disk'],
      {},
      undefined,
      '--store is "disk", must be memory, redis://HOST:PORT, redis-cluster://HOST:PORT,HOST:PORT',
    ],
    [
      'a contradiction',
      ['--retain-failed', '1m'],
      {},
      undefined,
      '--retain-failed is "1m", must be 1s to 30d; it must not be less than retain-events (15m)',
    ],
  ];
  const TLS = ['--tls-cert', 'c.pem', '--tls-key', 'k.pem'];
  const anywhere = ['--grpc', '0.0.0.0:50051'];
  refused.push(
    [
      'a certificate alone',
      ['--tls-cert', 'c.pem'],
      {},
      undefined,
      /^--tls-cert is given without --tls-key, its private key; give both$/,
    ],
    [
      'a client CA alone',
      ['--tls-client-ca', 'a.pem'],
      {},
      undefined,
      /^--tls-client-ca is given without --tls-cert, /,
    ],
    [
      'reviews without roles',
      ['--token-review', 'in-cluster'],
      {},
      undefined,
      /^--token-review is given without --token-file/,
    ],
    [
      'reviews in the clear',
      ['--token-file', 'a.yaml', '--token-review', 'http://api:6443'],
      {},
      undefined,
      '--token-review is "http://api:6443", must be https://HOST:PORT or in-cluster',
    ],
    [
      'a trust domain of nobody',
      ['--trust-domain', 'a'],
      {},
      undefined,
      /^--trust-domain is given and nothing vouches/,
    ],
    [
      'a sidecar by name',
      ['--trust-xfcc', 'sidecar'],
      {},
      undefined,
      /^--trust-xfcc has "sidecar", must have `loopback`/,
    ],
    ['TLS for whoever comes', [...anywhere, ...TLS], {}, undefined, /^--grpc is .* while there is no authentication; /],
    [
      'tokens in the clear',
      [...anywhere, '--token-file', 'a.yaml'],
      {},
      undefined,
      /^--grpc is "0\.0\.0\.0:50051", must be a loopback address while tokens come in the clear; add --tls-cert and --tls-key/,
    ],
  );

  it('let others in where callers are known, and what they say is not', () => {
    for (const known of [
      [...TLS, '--tls-client-ca', 'a.pem'],
      [...TLS, '--token-file', 'a.yaml'],
      ['--trust-xfcc', '127.0.0.6,::6'],
      ['--token-file', 'a.yaml', '--insecure'],
    ]) {
      const config = read([...anywhere, '--http', '[::]:9464', ...known]);
      assert.equal(config.grpc.host, '0.0.0.0', known.join(' '));
      assert.ok(config.access !== undefined);
    }
    assert.equal(read(TLS).access, undefined, 'encrypted, and nobody is asked who they are');
  });

  for (const [what, args, env, file, message] of refused) {
    it(`refuse ${what} in one line`, () => {
      assert.throws(() => read(args, env, file), { name: 'ConfigError', message });
    });
  }

  it('adjust a contradiction that only a default makes, and say so', () => {
    const config = read(['--retain-events', '2d']);
    assert.equal(config.retainFailedMs, config.retainEventsMs);
    assert.match(config.notes[0]!, /retain-failed is raised from its default 24h/);
  });

  it('are named alike everywhere', () => {
    assert.equal(variableOf('data-dir'), 'MESHPULSE_DATA_DIR');
    for (const name of Object.keys(SETTINGS)) assert.match(name, /^[a-z]+(-[a-z]+)*$/);
  });

  it('stand in the documentation as they are declared, as do the metrics', () => {
    const page = readFileSync(join(PROTOS, '..', 'docs', 'collector.md'), 'utf8');
    assert.ok(
      page.includes(settingsTable()),
      'docs/collector.md: replace the settings by `bin/meshpulse collector --help`',
    );
    assert.ok(page.includes(metricsTable()), 'docs/collector.md: replace the metrics by metricsTable()');
  });
});
