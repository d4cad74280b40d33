import assert from 'node:assert/strict';
import {
  credentials,
  makeGenericClientConstructor,
  Metadata,
  status as Code,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { service as healthService } from 'grpc-health-check';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Duplex } from 'node:stream';
import { ROLES, RULES, rolesTable } from '../../../collector/src/access/roles.js';
import { API_CALLS } from '../../../collector/src/http/api.js';
import { PROTOS } from '../../../collector/src/paths.js';
import { service, SERVICES } from '../../../collector/src/rpc/protos.js';
import type { Plain } from '../ingest-support.js';
import { Clients, start, until, type TestCollector } from '../rpc-support.js';
import { bearer, Folder, hashOf } from './support.js';

/** Said here once more, so that a slip in the table is found: who may, by what a call is for. */
const WHO: Readonly<Record<string, readonly string[]>> = {
  report: ['reporter', 'agent'],
  read: ['viewer', 'operator'],
  signals: ['step', 'viewer', 'operator'],
  undone: ['step', 'operator'],
  change: ['operator'],
  anybody: ['none', ...ROLES],
};

const FOR: readonly [RegExp, keyof typeof WHO][] = [
  [/^Ingest\./, 'report'],
  [/^(?:Registry|Transactions)\./, 'read'],
  [/^Rollback\.(?:List|GetPlan|GetLedger|GetPolicy)$/, 'read'],
  [/^Rollback\.Watch$/, 'signals'],
  [/^Rollback\.Ack$/, 'undone'],
  [/^Rollback\.(?:Trigger|Override|Kill|Simulate|ListAudit)$/, 'change'],
  [/^grpc\.health\.v1\.Health\./, 'anybody'],
  [/^grpc\.reflection\./, 'read'],
];

const allowed = (call: string): readonly string[] => WHO[FOR.find(([name]) => name.test(call))![1]]!;

/** Protos of reflection, as the library brings them. */
const reflection = ((): Record<string, ServiceDefinition> => {
  const home = join(dirname(createRequire(import.meta.url).resolve('@grpc/reflection')), '../proto/grpc/reflection');
  return Object.fromEntries(
    ['v1', 'v1alpha'].map(version => {
      const name = `grpc.reflection.${version}.ServerReflection`;
      return [name, loadSync(join(home, version, 'reflection.proto'))[name] as ServiceDefinition];
    }),
  );
})();

const SERVED: readonly [name: string, definition: ServiceDefinition][] = [
  ...SERVICES.map((name): [string, ServiceDefinition] => [name, service(name)]),
  ['grpc.health.v1.Health', healthService],
  ...Object.entries(reflection),
];

const callersOf = (token: string): Record<string, string> => (token === 'none' ? {} : bearer(`token-${token}`));

describe('the table of roles', function () {
  this.timeout(60_000);
  const folder = new Folder();
  let collector: TestCollector;
  let operator: Clients;

  before(async () => {
    const people = ROLES.map(
      role =>
        `  - {name: ${role}, token: ${hashOf(`token-${role}`)}, roles: [${role}], namespaces: ['*'], node: node-1}\n`,
    );
    folder.write('access.yaml', `people:\n${people.join('')}`);
    collector = await start(['--token-file', folder.file('access.yaml')]);
    operator = new Clients(collector.running.grpc, credentials.createInsecure(), bearer('token-operator'));
  });
  after(async () => {
    operator.close();
    await collector.stop();
    folder.remove();
  });

  it('stands in the documentation as it is', () => {
    const page = readFileSync(join(PROTOS, '..', 'docs', 'access.md'), 'utf8');
    assert.ok(page.includes(rolesTable()), 'docs/access.md: replace the table by rolesTable()');
  });

  it('has every call that is served, and no other', () => {
    const calls = SERVED.flatMap(([name, definition]) => Object.keys(definition).map(method => `${name}.${method}`));
    const grpc = Object.keys(RULES).filter(call => !call.startsWith('/'));
    assert.deepEqual([...grpc].sort(), [...calls].sort());
    for (const call of API_CALLS) assert.ok(grpc.includes(call), call);
  });

  /** The code that a call ends with, or, for a stream that goes on, OK. */
  function codeOf(definition: ServiceDefinition, method: string, token: string): Promise<Code> {
    const client = new (makeGenericClientConstructor(definition, 'any'))(
      collector.running.grpc,
      credentials.createInsecure(),
    );
    const { path, requestStream, responseStream, requestSerialize, responseDeserialize } = definition[method]!;
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(callersOf(token))) metadata.set(name, value);
    return new Promise<Code>(resolve => {
      if (!responseStream) {
        client.makeUnaryRequest(path, requestSerialize, responseDeserialize, {}, metadata, error =>
          resolve(error?.code ?? Code.OK),
        );
        return;
      }
      const stream = requestStream
        ? client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata)
        : client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, {}, metadata);
      // A watch of nothing says nothing: it was let in if it is not sent away.
      const timer = setTimeout(() => stream.cancel(), 300);
      stream.on('data', () => undefined);
      stream.on('error', () => undefined);
      stream.on('status', ({ code }: { code: Code }) => {
        clearTimeout(timer);
        resolve(code === Code.CANCELLED ? Code.OK : code);
      });
      if (stream instanceof Duplex) stream.end({});
    }).finally(() => client.close());
  }

  const refusals = async (actor: string, subject: string): Promise<Plain[]> => {
    const request = { actions: ['refused'], actor, pageSize: 1000 };
    const { records = [] } = (await operator.call('Rollback.ListAudit', request)) as { records?: Plain[] };
    return records.filter(record => record['subject'] === subject);
  };

  for (const [name, definition] of SERVED) {
    for (const method of Object.keys(definition)) {
      const call = `${name}.${method}`;
      it(`holds for ${call}`, async () => {
        const callers = ['none', ...ROLES];
        const codes = await Promise.all(callers.map(token => codeOf(definition, method, token)));
        for (const [at, token] of callers.entries()) {
          const code = codes[at]!;
          if (allowed(call).includes(token)) {
            assert.ok(code !== Code.UNAUTHENTICATED && code !== Code.PERMISSION_DENIED, `${token} got ${Code[code]}`);
            continue;
          }
          assert.equal(Code[code], token === 'none' ? 'UNAUTHENTICATED' : 'PERMISSION_DENIED', token);
          const who = token === 'none' ? '127.0.0.1' : token;
          await until(`audit of ${call} by ${token}`, async () => (await refusals(who, call))[0]);
        }
      });
    }
  }

  const PATHS: readonly (readonly [path: string, call: string])[] = [
    ['services', 'Registry.ListServices'],
    ['instances', 'Registry.ListInstances'],
    ['instances/x', 'Registry.GetInstance'],
    ['who?ip=10.0.0.1', 'Registry.WhoHad'],
    ['flow', 'Registry.GetFlow'],
    ['transactions', 'Transactions.List'],
    ['transactions/x', 'Transactions.Get'],
    ['transactions/x/explain', 'Transactions.Explain'],
    ['rollback/verdicts', 'Rollback.List'],
    ['rollback/plans/x', 'Rollback.GetPlan'],
    ['rollback/ledger', 'Rollback.GetLedger'],
    ['rollback/policy', 'Rollback.GetPolicy'],
    ['audit', 'Rollback.ListAudit'],
  ];

  it('holds for every path of HTTP', async () => {
    assert.deepEqual(PATHS.map(([, call]) => call).sort(), [...API_CALLS].sort());
    const status = async (path: string, token: string): Promise<number> =>
      (await fetch(`http://${collector.running.http}${path}`, { headers: callersOf(token) })).status;
    for (const [path, call] of PATHS) {
      for (const token of ['none', ...ROLES]) {
        const code = await status(`/api/v1/${path}`, token);
        if (allowed(call).includes(token)) assert.ok(code === 200 || code === 404, `${path} ${token} ${code}`);
        else assert.equal(code, token === 'none' ? 401 : 403, `${path} ${token}`);
      }
    }
    for (const path of ['/metrics', '/healthz', '/readyz']) assert.equal(await status(path, 'none'), 200);
  });

  it('says what would be needed', async () => {
    const viewer = new Clients(collector.running.grpc, credentials.createInsecure(), bearer('token-viewer'));
    const error = await viewer
      .call('Rollback.Kill', { reason: 'x' })
      .catch((e: unknown) => e as Error & { details: string });
    viewer.close();
    assert.equal(error['details'], 'viewer has the role viewer, Rollback.Kill takes the role operator');
  });
});
