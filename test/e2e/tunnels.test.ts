// Tunnels: CONNECT over HTTP/1.1 and HTTP/2, and WebSocket by HTTP/2's extended CONNECT. They are streams.
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { format, type Address } from '../../demo/src/mesh/address.js';
import { until } from '../../demo/src/mesh/child.js';
import type { Json } from '../../demo/src/mesh/json.js';
import type { AccessLogLine } from '../../demo/src/mesh/listeners.js';
import { outboundCluster } from '../../demo/src/mesh/node.js';
import type { Row } from '../filter/wire.js';
import { rowStory, tally } from './support/ledger.js';
import { INTERVAL_MS, OddMesh } from './support/odd-mesh.js';

const TUNNELS = 3;
const BYTES = 500;
const SHOWN_MS = 15_000;
/** Several reports are sent meanwhile. */
const OPEN_MS = 5 * INTERVAL_MS;

/** One tunnel, as its client holds it. */
interface Tunnel {
  stream: Duplex;
  /** Sends this text, framed as the tunnel wants it. */
  say(text: string): void;
  /** All that came back. */
  heard(): string;
  reset(): void;
}

interface Kind {
  name: string;
  between: 'http1' | 'http2';
  operation: string;
  open: (to: Address) => Promise<Tunnel>;
}

const KINDS: Kind[] = [
  { name: 'CONNECT over HTTP/1.1', between: 'http1', operation: 'CONNECT', open: http1Connect },
  {
    name: 'CONNECT over HTTP/2',
    between: 'http2',
    operation: 'CONNECT',

    open: to => http2Connect(to, {}),
  },
  {
    name: 'WebSocket by extended CONNECT',
    between: 'http2',
    operation: 'GET /socket',

    open: to => http2Connect(to, { ':protocol': 'websocket', ':scheme': 'http', ':path': '/socket' }),
  },
];

async function http1Connect(to: Address): Promise<Tunnel> {
  const socket = connect({ ...to, noDelay: true });
  let text = '';
  socket.on('data', chunk => (text += chunk.toString('latin1')));
  // A reset is our own.
  socket.on('error', () => {});
  socket.write('CONNECT back:8080 HTTP/1.1\r\nhost: back:8080\r\n\r\n');
  await until('the tunnel open', SHOWN_MS, () => (text.includes('\r\n\r\n') ? true : undefined));
  assert.match(text, /^HTTP\/1\.1 200 /);
  return {
    stream: socket,
    say: said => socket.write(said),
    heard: () => text,
    reset: () => socket.resetAndDestroy(),
  };
}

async function http2Connect(to: Address, more: Record<string, string>): Promise<Tunnel> {
  const session = connectHttp2(`http://${format(to)}`);
  // The stream says what became of it.
  session.on('error', () => {});
  await once(session, 'remoteSettings');
  const webSocket = more[':protocol'] === 'websocket';
  const stream = session.request(
    {
      ':method': 'CONNECT',
      ':authority': 'back:8080',
      ...more,
      ...(webSocket ? { 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' } : {}),
    },
    { endStream: false },
  );
  let text = '';
  stream.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  stream.on('error', () => {});
  stream.on('close', () => session.close());
  const [head] = (await once(stream, 'response')) as [Record<string, number>];
  assert.equal(head[':status'], 200);
  return {
    stream,
    say: said => stream.write(webSocket ? frame(said) : said),
    heard: () => text,
    reset: () => stream.close(constants.NGHTTP2_CANCEL),
  };
}

/** A final text frame of a client, masked with zeros; RFC 6455, 5.2. */
function frame(text: string): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(text.length);
  return Buffer.concat([Buffer.from([0x81, 0x80 | 126]), length, Buffer.alloc(4), Buffer.from(text, 'latin1')]);
}

/** Lets a proxy's listeners take CONNECT; `terminate`: to the application as plain bytes. */
function allowConnect(bootstrap: Json, terminate: boolean, cluster: string): void {
  const upgrade = { upgrade_type: 'CONNECT', ...(terminate ? { connect_config: {} } : {}) };
  const route = { match: { connect_matcher: {} }, route: { cluster, timeout: '0s', upgrade_configs: [upgrade] } };
  const statics = bootstrap['static_resources'] as { clusters: unknown; listeners: { name: string }[] };
  const text = JSON.stringify(statics.clusters).replaceAll(
    '"http2_protocol_options":{}',
    '"http2_protocol_options":{"allow_connect":true}',
  );
  statics.clusters = JSON.parse(text);
  for (const listener of statics.listeners) {
    if (listener.name.startsWith('inbound') !== terminate) continue;
    const manager = managerOf(listener);
    manager['http2_protocol_options'] = { allow_connect: true };
    (manager['upgrade_configs'] as Json[]).push({ upgrade_type: 'CONNECT' });
    const { virtual_hosts } = manager['route_config'] as { virtual_hosts: { routes: Json[] }[] };
    for (const host of virtual_hosts) host.routes.unshift(structuredClone(route));
  }
}

function managerOf(listener: Json): Json {
  const [chain] = listener['filter_chains'] as { filters: { typed_config: Json }[] }[];
  const manager = chain?.filters[0]?.typed_config;
  if (!manager) throw new Error('no connection manager');
  return manager;
}

/** Sends back what it gets. */
class Echo {
  private readonly sockets = new Set<Socket>();
  private constructor(private readonly server: Server) {
    server.on('connection', socket => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
      socket.on('error', () => socket.destroy());
      socket.pipe(socket);
    });
  }

  static async start(address: Address): Promise<Echo> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(address.port, address.host, resolve);
    });
    return new Echo(server);
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise(done => this.server.close(done));
  }
}

async function start(kind: Kind): Promise<{ world: OddMesh; stop: () => Promise<void> }> {
  const connects = kind.operation === 'CONNECT';
  const world = await OddMesh.start(
    [
      {
        name: 'front',
        outboundOnly: true,
        proxy: { patch: bootstrap => allowConnect(bootstrap, false, outboundCluster('back', 'shop', 8080)) },
      },
      {
        name: 'back',
        protocol: kind.between,
        proxy: { patch: bootstrap => allowConnect(bootstrap, true, 'inbound|8080||') },
      },
    ],
    connects ? { without: ['back'] } : {},
  );
  const echo = connects ? await Echo.start(world.mesh.proxy('back').app) : undefined;
  return {
    world,
    stop: async () => {
      await world.stop();
      await echo?.stop();
    },
  };
}

/** CONNECT has no path, so the books of other requests do not fit. */
const rowEnd = (row: Row) => `${row.operation.split(' ')[0]} ${rowStory(row).split(' ').slice(0, 2).join(' ')}`;
const logEnd = (line: AccessLogLine) => `${line.method} ${line.code} ${line.flags}`;

const lastStatus = (world: OddMesh, service: string) => world.recorder.life(service).statuses.at(-1)?.status;

async function booksAgree(world: OddMesh, kind: Kind, service: string): Promise<void> {
  const rows = world.recorder.rows(service);
  assert.deepEqual(tally(rows.map(rowEnd)), tally((await world.log(service)).map(logEnd)), service);
  for (const row of rows) {
    assert.equal(row.operation, kind.operation);
    assert.match(rowStory(row), /\[(call )?stream\]$/);
    assert.equal(row.durationUs, 0);
    const { requestBytes, responseBytes } = row;
    assert.ok(Math.min(requestBytes, responseBytes) >= 2 * BYTES, `${requestBytes}, ${responseBytes} bytes`);
  }
  assert.deepEqual(world.recorder.life(service).lost, { batches: 0, rows: 0 }, service);
}

describe('tunnels', function () {
  this.timeout(60_000);

  for (const kind of KINDS) {
    it(`${kind.name}: in flight while open, never cut, bytes and no duration at the end`, async () => {
      const { world, stop } = await start(kind);
      try {
        await world.recorder.greeted('front', 'back');
        const tunnels: Tunnel[] = [];
        for (let i = 0; i < TUNNELS; i++) tunnels.push(await kind.open(world.mesh.proxy('front').outbound));
        const talk = async (letter: string) => {
          for (const tunnel of tunnels) tunnel.say(letter.repeat(BYTES));
          await until(`${letter} comes back`, SHOWN_MS, () =>
            tunnels.every(tunnel => tunnel.heard().includes(letter.repeat(BYTES))) ? true : undefined,
          );
        };
        await talk('a');
        const last = (service: string) => lastStatus(world, service);
        await until('open tunnels shown', SHOWN_MS, () =>
          last('back')?.streamsOpen === TUNNELS &&
          last('back')?.inFlight === TUNNELS &&
          last('front')?.callsInFlight === TUNNELS
            ? true
            : undefined,
        );
        await sleep(OPEN_MS);
        await talk('b');
        assert.deepEqual([...world.recorder.rows('front'), ...world.recorder.rows('back')], [], 'rows of open tunnels');

        const [first, ...others] = tunnels;
        first?.reset();
        for (const { stream } of others) stream.end();
        // Half-closed on our side; the application answers in kind.
        await sleep(OPEN_MS);
        for (const { stream } of others) stream.destroy();
        await world.settled('front', 'back');
        for (const service of ['front', 'back']) await booksAgree(world, kind, service);
      } finally {
        await stop();
      }
    });
  }
});
