// Requests that are no evidence of anything are counted under their names: probes, shadows, informational
// responses in between, and callees outside the mesh.
import { strict as assert } from 'node:assert';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../demo/src/mesh/address.js';
import { outboundCluster } from '../../demo/src/mesh/node.js';
import { rowStory, tally } from './support/ledger.js';
import { Http1OddClient } from './support/odd-client.js';
import { OddMesh } from './support/odd-mesh.js';
import { RawClient } from './support/raw-http.js';

const PROBES = ['kube-probe/1.31', 'Envoy/HC', 'GoogleHC/1.0', 'ELB-HealthChecker/2.0'];

describe('labels', function () {
  this.timeout(40_000);

  it('probes and shadows are told apart, and nothing else is', async () => {
    const copies = outboundCluster('back', 'shop', 8080);
    const back = outboundCluster('back', 'shop', 8080);
    const mirrored = {
      match: { prefix: '/mirrored' },
      route: { cluster: back, timeout: '0s', request_mirror_policies: [{ cluster: copies }] },
    };
    const world = await OddMesh.start([
      { name: 'front', outboundOnly: true },
      { name: 'back', routes: [mirrored] },
    ]);
    try {
      await world.recorder.greeted('front', 'back');
      const client = new Http1OddClient(world.mesh.proxy('front').outbound);
      for (const probe of [...PROBES, 'Mozilla/5.0 kube-probe/']) {
        await client.send({ host: 'back', path: '/healthz', headers: { 'user-agent': probe } });
      }
      for (let i = 0; i < 3; i++) await client.send({ host: 'back', path: '/mirrored' });
      await sleep(300);
      await world.idle();
      const calls = await world.recorder.rowsOf('front', PROBES.length + 4);
      const events = await world.recorder.rowsOf('back', PROBES.length + 7);
      const stories = (rows: typeof calls) => tally(rows.map(row => `${row.operation}: ${rowStory(row)}`));
      assert.deepEqual(stories(calls), {
        'GET /healthz: 200 - ok attempts=1 [call probe]': PROBES.length,
        'GET /healthz: 200 - ok attempts=1 [call]': 1,
        'GET /mirrored: 200 - ok attempts=1 [call]': 3,
      });
      assert.deepEqual(stories(events), {
        'GET /healthz: 200 - ok [probe]': PROBES.length,
        'GET /healthz: 200 - ok []': 1,
        'GET /mirrored: 200 - ok [shadow]': 3,
        'GET /mirrored: 200 - ok []': 3,
      });
    } finally {
      await world.stop();
    }
  });

  it('informational responses pass, and the final one counts', async () => {
    const world = await OddMesh.start([{ name: 'front', outboundOnly: true }, { name: 'back' }], { without: ['back'] });
    const { app } = world.mesh.proxy('back');
    const server = createServer((request, response) => {
      response.writeEarlyHints({ link: '</style.css>; rel=preload' });
      request.resume().on('end', () => response.writeHead(201).end());
    });
    await new Promise<void>(done => server.listen(app.port, app.host, done));
    try {
      await world.recorder.greeted('front', 'back');
      const client = RawClient.open(world.mesh.proxy('front').outbound);
      const head = 'POST /upload HTTP/1.1\r\nhost: back\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n';
      assert.equal((await client.send(head)).status, 100);
      const answer = await client.send('12345');
      assert.ok([103, 201].includes(answer.status), `status ${answer.status}`);
      await sleep(200);
      client.close();
      for (const service of ['front', 'back']) {
        const [row] = await world.recorder.rowsOf(service, 1);
        assert.equal(row?.httpStatus, 201);
        assert.match(row ? rowStory(row) : '', /^201 - ok /);
      }
    } finally {
      await world.stop();
      server.closeAllConnections();
      server.close();
    }
  });

  it('a callee outside the mesh is a call marked external, with its host as the peer', async () => {
    const address = { host: '127.0.0.1', port: await freePort() };
    const server = createServer((_, response) => response.writeHead(200).end());
    await new Promise<void>(done => server.listen(address.port, address.host, done));
    const world = await OddMesh.start([{ name: 'front', outboundOnly: true }, { name: 'back' }], {
      externals: [{ host: 'api.example.org', address }],
    });
    try {
      await world.recorder.greeted('front', 'back');
      const client = new Http1OddClient(world.mesh.proxy('front').outbound);
      await client.send({ host: 'api.example.org', path: '/v1/things' });
      await client.send({ host: 'back', path: '/v1/things' });
      await world.idle();
      const rows = await world.recorder.rowsOf('front', 2);
      assert.deepEqual(tally(rows.map(row => `${row.peerService} ${rowStory(row)}`)), {
        'api.example.org 200 - ok attempts=1 [call external]': 1,
        'back.shop.svc.cluster.local 200 - ok attempts=1 [call]': 1,
      });
    } finally {
      await world.stop();
      server.closeAllConnections();
      server.close();
    }
  });
});
