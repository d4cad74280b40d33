import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { begin, BIN, meshpulse, until } from './support.js';

const execute = promisify(execFile);

/** An address that nobody listens on. */
async function freeAddress(): Promise<string> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise(resolve => server.close(resolve));
  return `127.0.0.1:${port}`;
}

describe('the command line', function () {
  this.timeout(30_000);

  for (const [args, code, message] of [
    [['stauts'], 2, /unknown command 'stauts'\n\(Did you mean status\?\)/],
    [['status', '--wacth'], 2, /unknown option '--wacth'\n\(Did you mean --watch\?\)/],
    [['status', '-o', 'yaml'], 2, /'yaml' is invalid\. Allowed choices are table, json/],
    [['status', 'a', 'b'], 2, /too many arguments/],
    [['status', '--watch', '--all'], 2, /leave out --watch or --all/],
    [['who'], 2, /missing required argument 'ip'/],
    [['who', '10.0.0'], 2, /<ip> is "10\.0\.0", must be an IPv4 or IPv6 address/],
    [['who', '10.0.0.1', '--at', 'noon'], 2, /--at is "noon", must be a time like/],
    [['who', '10.0.0.1', '--port', '70000'], 2, /It must be 1 to 65535/],
    [['observe', '--state', 'runing'], 2, /--state is "runing", must be one of .*; did you mean running\?/],
    [['observe', '--older-than', '5'], 2, /--older-than is "5", must be a duration like/],
    [['observe', '-n', 'a', '-A'], 2, /-n and -A contradict each other/],
    [['observe', '--limit', '0'], 2, /It must be 1 to 100000/],
    [['why'], 2, /missing required argument 'id'/],
    [['completion', 'tcsh'], 2, /Allowed choices are bash, zsh, fish/],
    [['status', '--collector', 'nowhere'], 2, /--collector is "nowhere", must be HOST:PORT/],
    [['collector', '--grcp', 'x'], 2, /--grcp is not a known option; did you mean grpc\?/],
  ] as const) {
    it(`answers ${args.join(' ')} with code ${code} and a line that helps`, async () => {
      const ran = await meshpulse(args);
      assert.match(ran.err, message);
      assert.equal(ran.code, code);
      assert.equal(ran.out, '');
    });
  }

  it('says which collector could not be asked, why, and what to do; code 3', async () => {
    const address = await freeAddress();
    for (const args of [
      ['status'],
      ['status', '-w'],
      ['observe'],
      ['observe', '-f'],
      ['who', '10.0.0.1'],
      ['why', 'abc'],
      ['flow'],
    ]) {
      const ran = await meshpulse([...args, '--collector', address]);
      assert.equal(ran.code, 3, args.join(' '));
      assert.equal(ran.out, '');
      assert.equal(
        ran.err,
        `meshpulse: could not ask the collector at ${address}: nothing listens there; start one with \`meshpulse collector\`, or name another with --collector HOST:PORT or MESHPULSE_COLLECTOR\n`,
      );
    }
    const { err } = await meshpulse(['status'], { MESHPULSE_COLLECTOR: address });
    assert.match(err, new RegExp(`at ${address}: nothing listens there`));
  });

  it('does not take something else for a collector', async () => {
    const server = createServer(socket => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const ran = await meshpulse(['status', '--collector', `127.0.0.1:${port}`]);
    server.close();
    assert.equal(ran.code, 3);
    assert.match(ran.err, /^meshpulse: could not ask the collector at .*; check /);
  });

  it('shows help and version on stdout, with code 0', async () => {
    const help = await meshpulse(['--help']);
    assert.equal(help.code, 0);
    for (const command of ['demo', 'collector', 'status', 'observe', 'who', 'why', 'flow', 'completion', 'version']) {
      assert.match(help.out, new RegExp(`^  ${command} `, 'm'));
    }
    const { out, code } = await meshpulse(['version']);
    assert.match(out, /^meshpulse \d+\.\d+\.\d+ \(node 2\d\.\d+\.\d+\)\n$/);
    assert.equal(code, 0);
    const { version } = JSON.parse((await meshpulse(['version', '-o', 'json'])).out) as { version: string };
    assert.match(out, new RegExp(version.replaceAll('.', '\\.')));
    assert.equal((await meshpulse([])).code, 2);
  });

  it('completes: the scripts are ones that their shells can read', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'meshpulse-completion-'));
    try {
      const { out } = await meshpulse(['completion', 'bash']);
      const ask = `${out}\nCOMP_WORDS=(meshpulse ob); COMP_CWORD=1; _meshpulse; echo "\${COMPREPLY[*]}"
COMP_WORDS=(meshpulse who 10.0.0.1 --a); COMP_CWORD=3; _meshpulse; echo "\${COMPREPLY[*]}"
COMP_WORDS=(meshpulse status -o ""); COMP_CWORD=3; _meshpulse; echo "\${COMPREPLY[*]}"`;
      assert.equal((await execute('bash', ['-c', ask])).stdout, 'observe\n--at\ntable json\n');
      for (const shell of ['zsh', 'fish']) {
        const script = await meshpulse(['completion', shell]);
        assert.equal(script.code, 0);
        assert.match(script.out, /older-than/);
        // Single quotes come in pairs, or the shell would read on forever.
        assert.equal((script.out.replaceAll("'\\''", '').match(/'/g) ?? []).length % 2, 0);
      }
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it('ends well when its reader has seen enough', async () => {
    const { child, ended, err } = begin(['collector', '--help']);
    child.stdout!.destroy();
    assert.equal((await ended).code, 0, err());
  });

  it('says that it must be built first', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'meshpulse-unbuilt-'));
    try {
      await mkdir(join(dir, 'bin'));
      await copyFile(BIN, join(dir, 'bin/meshpulse.mjs'));
      const ran = await begin(['status'], {}, join(dir, 'bin/meshpulse.mjs')).ended;
      assert.equal(ran.code, 3);
      assert.equal(ran.err, 'meshpulse: not built yet; run `make build` in the checkout\n');
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it('runs a collector until it is told to stop, and asks it', async () => {
    const [grpc, http] = [await freeAddress(), await freeAddress()];
    const running = begin(['collector', '--grpc', grpc, '--http', http, '--drain-time', '0ms']);
    try {
      await until('ready', () =>
        fetch(`http://${http}/readyz`).then(
          answer => answer.ok || undefined,
          () => undefined,
        ),
      );
      const ran = await meshpulse(['status', '--collector', grpc]);
      assert.deepEqual(ran, { code: 0, out: '', err: 'no service has reported yet\n' });
    } finally {
      running.child.kill('SIGTERM');
    }
    assert.equal((await running.ended).code, 0, running.err());
  });
});
