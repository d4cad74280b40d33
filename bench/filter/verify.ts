// Before anything is timed: do the arms do the same job? Compares what goes over the wire, byte for byte.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AccessLogLine } from '../../demo/src/mesh/listeners.js';
import { type Arm, type Direction, DIRECTIONS, LUA, NONE, OURS, Sidecar, type Surroundings } from './arms.js';
import { requestBytes, type Trouble } from './messages.js';
import { OpenLoop } from './open-loop.js';
import { seeded } from './random.js';
import type { Upstream } from './upstream.js';

const RATE = 200;
/** Inbound: windows must close while requests come, then the filter's status has all keys. Outbound follows at once. */
const RUN_MS: Record<Direction, number> = { inbound: 2500, outbound: 300 };
const ACCESS_LOG_FLUSH_MS = 400;

/** What one direction of one arm put on the wire. */
interface Wire {
  /** Head of the request at the upstream, one line each. */
  request: string[];
  /** Head of the response at the client. */
  response: string[];
}

interface Seen {
  wires: Record<Direction, Wire>;
  /** Of requests that nobody honest sends, and of those with too many fields. */
  troubled: Wire[];
  log: AccessLogLine[];
}

/**
 * @throws AssertionError that shows the difference
 * @returns heads of our arm, to show in a report
 */
export async function verify(
  arms: Arm[],
  around: Surroundings,
  upstreams: Record<Direction, Upstream>,
): Promise<Record<Direction, Wire>> {
  const seen = new Map<string, Seen>();
  for (const name of [NONE, OURS, LUA]) {
    const arm = arms.find(a => a.name === name);
    if (arm) seen.set(name, await observe(arm, around, upstreams));
  }
  const none = seen.get(NONE);
  const ours = seen.get(OURS);
  const lua = seen.get(LUA);
  assert(none && ours && lua, 'verification needs the arms none, ours and lua');
  for (const direction of DIRECTIONS)
    compare(direction, none.wires[direction], ours.wires[direction], lua.wires[direction]);
  const heads = ({ troubled }: Seen) =>
    troubled.map(({ request, response }) => [request.map(plain), response.map(plain)]);
  assert.deepEqual(heads(ours), heads(lua), 'requests that want care: ours and Lua differ');
  for (const { wires, log } of [ours, lua]) checkLog(wires, log);
  return ours.wires;
}

async function observe(arm: Arm, around: Surroundings, upstreams: Record<Direction, Upstream>): Promise<Seen> {
  const sidecar = await Sidecar.start(arm, 0, around, true);
  try {
    const inbound = await exchange(sidecar, 'inbound', upstreams.inbound);
    const outbound = await exchange(sidecar, 'outbound', upstreams.outbound);
    const troubled: Wire[] = [];
    for (const trouble of ['strange', 'crowded'] as const)
      for (const direction of DIRECTIONS)
        troubled.push(await exchange(sidecar, direction, upstreams[direction], trouble));
    await sleep(ACCESS_LOG_FLUSH_MS);
    return { wires: { inbound, outbound }, troubled, log: await sidecar.accessLog() };
  } finally {
    await sidecar.stop();
  }
}

async function exchange(sidecar: Sidecar, direction: Direction, upstream: Upstream, trouble?: Trouble): Promise<Wire> {
  const loop = await OpenLoop.open(sidecar.listener(direction), requestBytes(direction === 'inbound', trouble), 1);
  upstream.keepHeads = true;
  try {
    const { answered, failed } = await loop.run(
      RATE,
      trouble === undefined ? RUN_MS[direction] : RUN_MS.outbound,
      seeded(1),
    );
    assert.equal(failed, 0, `${sidecar.arm.name}, ${direction}: requests failed`);
    assert.notEqual(answered, 0);
    return { request: lines(upstream.lastHead.toString('latin1')), response: lines(loop.lastHeads[0] ?? '') };
  } finally {
    upstream.keepHeads = false;
    loop.close();
  }
}

function lines(head: string): string[] {
  return head.split('\r\n');
}

const TRACE = /^(traceparent|tracestate):/;
const OWN = /^(x-cuid|x-mp-status|x-mp-progress):/;

function compare(direction: Direction, none: Wire, ours: Wire, lua: Wire): void {
  assert.deepEqual(ours.request.map(plain), lua.request.map(plain), `${direction} request: ours and Lua differ`);
  assert.deepEqual(ours.response.map(plain), lua.response.map(plain), `${direction} response: ours and Lua differ`);
  // Request line and host, trace context, then everything as without a filter.
  const moved = [
    ...none.request.slice(0, 2),
    ...none.request.filter(isTrace),
    ...none.request.slice(2).filter(line => !isTrace(line)),
  ];
  const stamped =
    direction === 'outbound' ? added(none.request, ours.request, 3) : added(none.response, ours.response, 2);
  assert.deepEqual(
    ours.request.filter(line => !stamped.includes(line)).map(plain),
    moved.map(plain),
    `${direction} request: other headers changed`,
  );
  assert.deepEqual(
    ours.response.filter(line => !stamped.includes(line)).map(plain),
    none.response.map(plain),
    `${direction} response: other headers changed`,
  );
}

function isTrace(line: string): boolean {
  return TRACE.test(line);
}

function added(before: string[], after: string[], count: number): string[] {
  const stamps = after.filter(line => OWN.test(line) && !before.includes(line));
  assert.equal(stamps.length, count, `stamps: ${stamps.join(' | ')}`);
  return stamps;
}

/** A line without what differs from life to life, from call to call, or from moment to moment. */
function plain(line: string): string {
  if (line.startsWith('x-mp-status:')) return line.replace(/\d+/g, '#');
  return line
    .replace(/^(x-cuid: )[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/, '$1<uuid>')
    .replace(/^(x-mp-progress: event=")[0-9a-f]{16}"$/, '$1<id>"')
    .replace(/^(x-envoy-upstream-service-time: )\d+$/, '$1#')
    .replace(/^(date: ).*$/, '$1<date>')
    .replace(/^((traceparent|x-request-id): .*)[0-9a-f]{8}/, '$1<serial>');
}

function checkLog(wires: Record<Direction, Wire>, log: AccessLogLine[]): void {
  const stamped = new Set(
    [wires.outbound.request, wires.inbound.response].flatMap(head => head.map(cuidOf)).filter(Boolean),
  );
  const logged = new Set(log.map(line => line.cuid?.replace(/^-|-$/g, '')));
  assert(log.length > 0, 'no access log');
  for (const cuid of stamped) assert(logged.has(cuid), `the access log has ${[...logged].join(' ')}, not ${cuid}`);
}

function cuidOf(line: string): string | undefined {
  return /^x-cuid: (.*)$/.exec(line)?.[1];
}
