// `meshpulse status [SERVICE]`: who exists, and how busy everyone is.

import type { Command } from 'commander';
import type { Client } from '../client.js';
import { EXIT, problem, wrongUse } from '../errors.js';
import type { Io } from '../io.js';
import type { Done } from '../main.js';
import type { Instance, Service, StatusUpdate } from '../messages.js';
import { didYouMean } from '../../../collector/src/near.js';
import { asking, json, jsonLine, withReadOptions, type Asking, type ReadOptions } from '../read-command.js';
import { instanceHeaders, instanceRow, progressTable } from '../instances.js';
import { line, orUnknown, table, widths, type Row } from '../table.js';

interface Options extends ReadOptions {
  readonly watch?: boolean;
  readonly namespace?: string;
  readonly all?: boolean;
}

const SHOWN_STATES = ['LIVE', 'SILENT', 'EXPECTED'].map(state => `INSTANCE_STATE_${state}`);

export function addStatus(program: Command, io: Io, done: Done): void {
  const command = program
    .command('status')
    .description('services, or the instances of one service: requests in work and waiting, load, jobs')
    .argument('[service]', 'as name.namespace, or the name alone if only one namespace has it')
    .option('-n, --namespace <namespace>', 'only this namespace')
    .option('-a, --all', 'also instances that are gone')
    .option('-w, --watch', 'then show every change as it happens');
  withReadOptions(command).action(async (service: string | undefined, options: Options) => {
    done(await asking(io, options, at => status(at, service)));
  });
}

async function status(at: Asking<Options>, name: string | undefined): Promise<number> {
  const { client, io, options } = at;
  if (options.watch === true && options.all === true)
    throw wrongUse('--all says nothing about changes; leave out --watch or --all');
  if (name === undefined && options.watch !== true) return services(at);
  const namespace = options.namespace ?? '';
  if (options.watch === true)
    return watch(at, name === undefined ? '' : await resolve(client, name, namespace), namespace);
  const service = await resolve(client, name!, namespace);
  const states = options.all === true ? [] : SHOWN_STATES;
  const { items } = await client.list<Instance>('Registry', 'ListInstances', 'instances', { service, states });
  if (options.output === 'json') {
    io.out(json({ instances: items }));
    return EXIT.OK;
  }
  if (items.length === 0) {
    io.note(
      `${service} has no instance${options.all === true ? '' : ' now; those that are gone are shown with --all'}\n`,
    );
    return EXIT.OK;
  }
  io.out(
    table(
      instanceHeaders(false),
      items.map(one => instanceRow(one, false, io)),
    ),
  );
  const jobs = progressTable(items);
  if (jobs !== '') io.out(`\n${jobs}`);
  return EXIT.OK;
}

async function services({ client, io, options }: Asking<Options>): Promise<number> {
  const request = { namespace: options.namespace ?? '' };
  const { items } = await client.list<Service>('Registry', 'ListServices', 'services', request);
  if (options.output === 'json') io.out(json({ services: items }));
  else if (items.length === 0) io.note('no service has reported yet\n');
  else io.out(servicesTable(items));
  return EXIT.OK;
}

function servicesTable(services: readonly Service[]): string {
  const clusters = new Set(services.map(service => service.cluster)).size > 1;
  const expected = services.some(service => service.expected > 0);
  const headers = [
    'SERVICE',
    ...(clusters ? ['CLUSTER'] : []),
    'LIVE',
    'SILENT',
    'GONE',
    ...(expected ? ['EXPECTED'] : []),
    'IN_FLIGHT',
    'QUEUE',
    'EVENTS',
    'FAILED',
  ];
  const rows = services.map((service): Row => {
    // A service without sidecar has no instance that could say anything; its calls are counted.
    const lives = service.external ? ['external', '-', '-'] : [service.live, service.silent, service.gone].map(String);
    return [
      service.name,
      ...(clusters ? [orUnknown(service.cluster)] : []),
      ...lives,
      ...(expected ? [String(service.expected)] : []),
      orUnknown(service.inFlight),
      orUnknown(service.queue),
      service.events,
      String(failures(service)),
    ];
  });
  return table(headers, rows);
}

function failures({ operations }: Service): number {
  return operations.filter(one => one.outcome === 'OUTCOME_FAILED').reduce((sum, one) => sum + Number(one.count), 0);
}

/** The full name of a service. @throws CliError when there is none, or more than one */
async function resolve(client: Client, name: string, namespace: string): Promise<string> {
  const { items } = await client.list<Service>('Registry', 'ListServices', 'services', { namespace });
  const names = [...new Set(items.map(service => service.name))];
  if (names.includes(name)) return name;
  const short = names.filter(known => known.split('.')[0] === name);
  if (short.length === 1) return short[0]!;
  if (short.length > 1) throw wrongUse(`"${name}" is ${short.join(' and ')}; name one, or its namespace with -n`);
  throw problem(`no service "${name}" is known${didYouMean(name, names)}`);
}

/** The state now, then a line for each change. */
async function watch({ client, io, options }: Asking<Options>, service: string, namespace: string): Promise<number> {
  const withService = service === '';
  const headers = instanceHeaders(withService);
  let first: Row[] | undefined = [];
  let columns: number[] = [];
  for await (const update of client.follow<StatusUpdate>('Registry', 'WatchStatus', { service, namespace })) {
    if (options.output === 'json') io.out(jsonLine(update));
    else if (update.instance !== undefined) {
      const row = instanceRow(update.instance, withService, io);
      if (first === undefined) io.out(line(row, columns));
      else if (SHOWN_STATES.includes(update.instance.state)) first.push(row);
    } else if (update.synced && first !== undefined) {
      columns = widths(headers, first);
      io.out(table(headers, first));
      first = undefined;
    }
  }
  return EXIT.OK;
}
