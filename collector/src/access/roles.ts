// Who may call what: the one table that the server asks, docs/access.md prints, and a test walks through.

export const ROLES = ['reporter', 'agent', 'step', 'viewer', 'operator'] as const;

/**
 * `reporter` tells of its own workload; `agent` of its own node; `step` follows the signals of its own service;
 * `viewer` reads what its namespaces did; `operator` reads and changes early rollback in them.
 */
export type Role = (typeof ROLES)[number];

/** Roles of which one is enough; `open` = anybody, also without an identity. */
export type Rule = 'open' | readonly Role[];

const REPORT: Rule = ['reporter', 'agent'];
const READ: Rule = ['viewer', 'operator'];
const CHANGE: Rule = ['operator'];

/** By call: `Service.Method` of meshpulse.v1, others with their package, and paths of HTTP. */
export const RULES: Readonly<Record<string, Rule>> = {
  'Ingest.Report': REPORT,
  'Ingest.ReportOnce': REPORT,
  'Registry.ListServices': READ,
  'Registry.ListInstances': READ,
  'Registry.GetInstance': READ,
  'Registry.WhoHad': READ,
  'Registry.WatchStatus': READ,
  'Registry.GetFlow': READ,
  'Transactions.Get': READ,
  'Transactions.List': READ,
  'Transactions.Watch': READ,
  'Transactions.Explain': READ,
  'Rollback.List': READ,
  'Rollback.GetPlan': READ,
  'Rollback.GetLedger': READ,
  'Rollback.GetPolicy': READ,
  'Rollback.Watch': ['step', 'viewer', 'operator'],
  'Rollback.Ack': ['step', 'operator'],
  'Rollback.Trigger': CHANGE,
  'Rollback.Override': CHANGE,
  'Rollback.Kill': CHANGE,
  'Rollback.Simulate': CHANGE,
  'Rollback.ListAudit': CHANGE,
  'grpc.health.v1.Health.Check': 'open',
  'grpc.health.v1.Health.List': 'open',
  'grpc.health.v1.Health.Watch': 'open',
  'grpc.reflection.v1.ServerReflection.ServerReflectionInfo': READ,
  'grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo': READ,
  '/metrics': 'open',
  '/healthz': 'open',
  '/readyz': 'open',
};

/** Name in the table of a gRPC path such as `/meshpulse.v1.Registry/WhoHad`. */
export const callOf = (path: string): string =>
  path
    .slice(1)
    .replace(/^meshpulse\.v1\./, '')
    .replace('/', '.');

/** Whether one of the roles is enough. What is not in the table is for nobody. */
export function allows(call: string, roles: { has(role: Role): boolean }): boolean {
  const rule = Object.hasOwn(RULES, call) ? RULES[call]! : [];
  return rule === 'open' || rule.some(role => roles.has(role));
}

export const isOpen = (call: string): boolean => Object.hasOwn(RULES, call) && RULES[call] === 'open';

/** What a refused caller is told it would need. */
export function neededFor(call: string): string {
  const rule = Object.hasOwn(RULES, call) ? RULES[call]! : [];
  return rule === 'open' || rule.length === 0 ? 'a role that nobody has' : `the role ${rule.join(' or ')}`;
}

/** The table of docs/access.md. */
export function rolesTable(): string {
  const mark = (rule: Rule, role: Role): string => (rule === 'open' || rule.includes(role) ? 'yes' : '');
  const rows = Object.entries(RULES).map(
    ([call, rule]) =>
      `| \`${call}\` | ${rule === 'open' ? 'yes' : ''} | ${ROLES.map(role => mark(rule, role)).join(' | ')} |`,
  );
  const head = ['| call | nobody known | ' + ROLES.join(' | ') + ' |', `|---|---|${ROLES.map(() => '---|').join('')}`];
  return [...head, ...rows].join('\n').replaceAll('|  |', '| |').replaceAll('|  |', '| |');
}
