import { strict as assert } from 'node:assert';
import { compareEdges, differences, toCounts, traceContextFirst } from '../../../demo/src/checks.js';

describe("the demo's comparisons", () => {
  it('names every count that differs, on either side', () => {
    const sent = new Map([['GET /a', new Map([[200, 5]])]]);
    const operations = [
      { operation: 'GET /a', response_code: 200, response_flags: '', count: '3' },
      { operation: 'GET /a', response_code: 200, response_flags: 'UF', count: '2' },
    ];
    assert.deepEqual(differences(sent, toCounts(operations)), []);
    operations.push({ operation: 'GET /b', response_code: 404, response_flags: 'NR', count: '1' });
    assert.deepEqual(differences(sent, toCounts(operations)), ['GET /b 404: sent 0, counted 1']);
    assert.deepEqual(differences(sent, new Map()), ['GET /a 200: sent 5, counted 0']);
  });

  it('tells missing edges from surplus ones', () => {
    assert.deepEqual(compareEdges(['a -> b', 'b -> c'], ['b -> c', 'c -> d']), {
      missing: ['a -> b'],
      surplus: ['c -> d'],
    });
  });

  const rows: [string, string[], boolean][] = [
    ['alone behind host', ['host', 'traceparent', 'accept'], true],
    ['several behind host', ['host', 'traceparent', 'tracestate', 'x-b3-traceid', 'accept'], true],
    ['behind another header', ['host', 'accept', 'traceparent'], false],
    ['one left behind', ['host', 'traceparent', 'accept', 'tracestate'], false],
    ['none at all', ['host', 'accept'], false],
    ['no headers', [], false],
  ];
  for (const [name, names, expected] of rows) {
    it(`sees trace context that stands ${name}`, () => assert.equal(traceContextFirst(names), expected));
  }
});
