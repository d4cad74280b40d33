// Every instance has an address of its own out of 127.0.0.0/8, which Linux serves whole, without set-up.
import { randomInt } from 'node:crypto';
import { createServer, type Server } from 'node:net';
import type { Json } from './json.js';

/** A TCP address: dotted IPv4 and port 1..65535. */
export interface Address {
  host: string;
  port: number;
}

export function format(address: Address): string {
  return `${address.host}:${address.port}`;
}

/** Envoy's `core.v3.Address`. */
export function envoyAddress(address: Address): Json {
  return { socket_address: { address: address.host, port_value: address.port } };
}

/**
 * Below the ports that Linux gives to outgoing connections (32768 and up): a server that restarts on its
 * port must not find it taken by a client, least of all by one that was looking for that server.
 */
const PORT_FIRST = 20000;
const PORT_LAST = 31999;
const PORT_TRIES = 100;

/** A port that was free a moment ago, and that no outgoing connection will take. */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  for (let i = 0; i < PORT_TRIES; i++) {
    const port = randomInt(PORT_FIRST, PORT_LAST + 1);
    if (await isFree({ host, port })) return port;
  }
  throw new Error(`no port on ${host}`);
}

/** True if nobody listens there. */
export async function isFree(address: Address): Promise<boolean> {
  try {
    const server = await listen(address.host, address.port);
    await new Promise(done => server.close(done));
    return true;
  } catch {
    return false;
  }
}

/** The first two numbers of a mesh's addresses, e.g. `127.57`, taken until released. */
export interface Subnet {
  prefix: string;
  release(): void;
}

/** Bound while a mesh owns its subnet, so that two meshes on one machine never share addresses. */
const LOCK_PORT = 15999;
const SUBNET_FIRST = 20;
const SUBNET_LAST = 250;

/**
 * Takes `127.N` for the first free N after a random one; meshes of several test runs can stand side by side.
 *
 * @param random in [0, 1)
 * @throws Error if all are taken
 */
export async function takeSubnet(random = Math.random()): Promise<Subnet> {
  const count = SUBNET_LAST - SUBNET_FIRST + 1;
  const start = Math.floor(random * count);
  for (let i = 0; i < count; i++) {
    const subnet = await trySubnet(`127.${SUBNET_FIRST + ((start + i) % count)}`);
    if (subnet) return subnet;
  }
  throw new Error(`every subnet 127.${SUBNET_FIRST} to 127.${SUBNET_LAST} is taken by another mesh`);
}

/** Takes one named subnet, e.g. `127.0`; undefined if another mesh has it. */
export async function trySubnet(prefix: string): Promise<Subnet | undefined> {
  try {
    const lock = await listen(`${prefix}.0.1`, LOCK_PORT);
    lock.unref();
    return { prefix, release: () => lock.close() };
  } catch {
    return undefined;
  }
}

function listen(host: string, port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer(socket => socket.destroy());
    server.once('error', reject);
    server.listen({ host, port, exclusive: true }, () => resolve(server));
  });
}
