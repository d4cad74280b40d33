// `meshpulse who IP`: which container life had an address, and when.

import { isIP } from 'node:net';
import type { Command } from 'commander';
import { EXIT, wrongUse } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import type { AddressInterval, WhoHad } from '../messages.js';
import { asking, json, wholeNumber, withReadOptions, type Asking, type ReadOptions } from '../read-command.js';
import { orUnknown, table } from '../table.js';
import { parseMoment, rfc3339, seconds } from '../times.js';

interface Options extends ReadOptions {
  readonly port?: number;
  readonly at?: string;
  readonly cluster?: string;
  readonly network?: string;
}

const PORT_MAX = 65_535;

export function addWho(program: Command, io: Io, done: Done): void {
  const command = program
    .command('who')
    .description(
      'which container had an address; exit code 1 when nobody known had it, or more than one can have had it',
    )
    .argument('<ip>', 'IPv4 or IPv6 address')
    .option('--port <port>', 'only lives that listened on this port', wholeNumber(1, PORT_MAX))
    .option('--at <time>', 'moment, as 2026-01-31T12:00:00Z or 5m for five minutes ago (default: now)')
    .option('--cluster <id>', 'only this mesh cluster')
    .option('--network <id>', 'only this network');
  withReadOptions(command).action(async (ip: string, options: Options) => {
    if (isIP(ip) === 0) throw wrongUse(`<ip> is "${ip}", must be an IPv4 or IPv6 address`);
    done(await asking(io, options, at => who(at, ip)));
  });
}

async function who({ client, io, options }: Asking<Options>, ip: string): Promise<number> {
  const { port = 0, cluster = '', network = '' } = options;
  const at = options.at === undefined ? {} : { at: seconds(parseMoment(options.at, '--at', io.nowMs())) };
  const answer = await client.ask<WhoHad>('Registry', 'WhoHad', { ip, port, cluster, network, ...at });
  if (options.output === 'json') io.out(json(answer));
  else if (answer.intervals.length > 0) io.out(shown(answer.intervals));
  if (answer.note !== '') io.note(`${answer.note}\n`);
  else if (answer.unknown) io.note(`nobody known had ${ip}\n`);
  return answer.unknown || answer.ambiguous ? EXIT.PROBLEM : EXIT.OK;
}

function shown(intervals: readonly AddressInterval[]): string {
  const many = (of: (one: AddressInterval) => string): boolean => new Set(intervals.map(of)).size > 1;
  const place = many(one => one.cluster) || many(one => one.network);
  const headers = ['CUID', 'SERVICE', 'SLOT', 'NODE', ...(place ? ['CLUSTER', 'NETWORK'] : []), 'FROM', 'TO'];
  const rows = intervals.map(one => [
    one.cuid,
    orUnknown(one.service),
    orUnknown(one.slot),
    orUnknown(one.node),
    ...(place ? [orUnknown(one.cluster), orUnknown(one.network)] : []),
    rfc3339(one.from),
    until(one),
  ]);
  return table(headers, rows);
}

/** A life that ended without goodbye had the address at least until it was last heard. */
function until({ to, lastHeard }: AddressInterval): string {
  const heard = lastHeard === undefined ? '' : `last heard ${rfc3339(lastHeard)}`;
  if (to === undefined) return heard === '' ? 'now' : heard;
  return heard === '' ? rfc3339(to) : `${rfc3339(to)}, ${heard}`;
}
