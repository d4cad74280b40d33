import assert from 'node:assert/strict';
import fc from 'fast-check';
import { DEFAULT_POLICY, parsePolicy, PolicyError } from '../../../collector/src/rollback/policy-file.js';

const FAULTS: readonly [string, string][] = [
  ['mode: maybe', 'line 1: mode is "maybe", must be off, observe, enforce'],
  ['ttl: 5m1s', 'line 1: ttl is "5m1s", must be 1s to 300s, written like 30s'],
  ['ttl: 301s', 'line 1: ttl is "301s", must be 1s to 300s, written like 30s'],
  ['\nlearn: yes please', 'line 2: learn is "yes please", must be a map of enabled, budgetRatio, budgetMin'],
  ['learn:\n  budgetRatio: 20', 'line 2: learn.budgetRatio is 20, must be 0 to 1'],
  ['learn:\n  budgetMin: -1', 'line 2: learn.budgetMin is -1, must be a whole number, 0 to 100000'],
  ['learn: {enabled: 1}', 'line 1: learn.enabled is 1, must be true or false'],
  ['declined: [503]', 'line 1: declined is "503", must be 400 to 499, or `grpc 1` to `grpc 16`'],
  ['declined:\n  - grpc 17', 'line 2: declined is "grpc 17", must be 400 to 499, or `grpc 1` to `grpc 16`'],
  ['steps: {}', 'line 1: steps is {}, must be a list'],
  ['steps:\n  - service: a', 'line 2: steps[0].operation is missing, must be a text of 1 to 400 characters'],
  [
    'steps:\n  - service: a\n    operation: 7',
    'line 3: steps[0].operation is 7, must be a text of 1 to 400 characters',
  ],
  [
    'steps:\n  - {service: a, operation: b}\n  - service: a\n    operation: b\n    failures: 0',
    'line 5: steps[1].failures is 0, must be a whole number, 1 to 100',
  ],
  ['steps:\n  - service: a\n    operaton: b', 'line 3: steps[0] has no field operaton; did you mean operation?'],
  ['stesp: []', 'line 1: the policy has no field stesp; did you mean steps?'],
  ['never: [refund]', 'line 1: never is "refund", must be `service OPERATION`, like `payment.shop POST /refund`'],
  [
    'scopes:\n  - scope: everywhere\n    mode: off',
    'line 2: scopes[0].scope is "everywhere", must be `mesh`, `namespace/NS`, `service/NAME` or `kind/KIND`',
  ],
  ['scopes:\n  - scope: mesh', 'line 2: scopes[0].mode is missing, must be off, observe, enforce'],
  [
    '- a\n- b',
    'line 1: the policy is ["a","b"], must be a map of mode, ttl, learn, declined, steps, never, safe, scopes',
  ],
  ['mode: off\nmode: observe', 'line 2: Map keys must be unique'],
  ['mode: [off', 'line 1: Flow sequence in block collection must be sufficiently indented and end with a ]'],
];

describe('the policy file', () => {
  for (const [text, message] of FAULTS) {
    it(`is refused whole: ${message}`, () => {
      assert.throws(
        () => parsePolicy(text),
        (error: unknown) => {
          assert.ok(error instanceof PolicyError);
          assert.equal(error.message, message);
          return true;
        },
      );
    });
  }

  it('is the defaults when it is empty', () => {
    assert.deepEqual(parsePolicy(''), DEFAULT_POLICY);
    assert.deepEqual(parsePolicy('# nothing\n'), DEFAULT_POLICY);
    assert.equal(DEFAULT_POLICY.mode, 'observe');
  });

  it('says everything that can be said', () => {
    const policy = parsePolicy(`
mode: enforce
ttl: 5s
learn: {enabled: false, budgetRatio: 0.1, budgetMin: 5}
declined: [402, grpc 9]
steps:
  - service: payment.shop
    operation: POST /charge
    kinds: [gateway.shop POST /checkout]
    failures: 2
    mode: observe
    budgetRatio: 0.5
never: [payment.shop POST /refund]
safe: [search.shop POST /query]
scopes: [{scope: namespace/test, mode: off}]
`);
    assert.deepEqual(policy, {
      mode: 'enforce',
      ttlMs: 5000,
      learn: { enabled: false, budgetRatio: 0.1, budgetMin: 5 },
      declined: { http: new Set([402]), grpc: new Set([9]) },
      steps: [
        {
          service: 'payment.shop',
          operation: 'POST /charge',
          kinds: ['gateway.shop POST /checkout'],
          failures: 2,
          mode: 'observe',
          budgetRatio: 0.5,
          line: 7,
        },
      ],
      never: new Set(['payment.shop POST /refund']),
      safe: new Set(['search.shop POST /query']),
      scopes: [{ scope: 'namespace/test', mode: 'off' }],
    });
  });

  it('leads to a policy or to a fault with a line, whatever it holds', () => {
    const pieces = [
      'mode',
      'ttl',
      'learn',
      'steps',
      'never',
      ':',
      ' ',
      '\n',
      '- ',
      '[',
      ']',
      '{',
      '}',
      '&a',
      '*a',
      '!!x',
      '30s',
      'off',
      '~',
      '"',
      "'",
      '\t',
      '|',
      '7',
    ];
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.constantFrom(...pieces), fc.string()), { maxLength: 30 }), parts => {
        try {
          parsePolicy(parts.join(''));
        } catch (error) {
          assert.ok(error instanceof PolicyError, String(error));
          assert.match(error.message, /^line \d+: /);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
