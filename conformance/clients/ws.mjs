// The `ws` package of npm against a running echo server.
//
// What comes in: the URL as the only argument. What goes out: one line per check, `ok NAME` or
// `not ok NAME: why`, then `1..N`; status 1 when a check failed.
//
// `ws` is fetched into a cache by `run`, which sets WS_PACKAGES to that folder.

import { once } from "node:events";
import { createRequire } from "node:module";
import path from "node:path";
import assert from "node:assert/strict";

const require = createRequire(path.join(process.env.WS_PACKAGES, "package.json"));
const { WebSocket } = require("ws");
const CHECK_TIMEOUT_MS = 10_000;
const MIB = 1024 * 1024;

async function connect(options = {}) {
  const socket = new WebSocket(url, options);
  await once(socket, "open");
  return socket;
}

async function echoOf(socket, message) {
  socket.send(message);
  const [data, isBinary] = await once(socket, "message");
  return { data, isBinary };
}

async function closed(socket, code, reason) {
  socket.close(code, reason);
  const [answered, text] = await once(socket, "close");
  return { code: answered, reason: text.toString() };
}

const checks = {
  async "text message"() {
    const socket = await connect();
    const { data, isBinary } = await echoOf(socket, "Grüße, 世界 \u{1f30d}");
    assert.equal(isBinary, false);
    assert.equal(data.toString(), "Grüße, 世界 \u{1f30d}");
    await closed(socket, 1000);
  },
  async "binary message"() {
    const socket = await connect();
    const sent = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const { data, isBinary } = await echoOf(socket, sent);
    assert.equal(isBinary, true);
    assert.ok(sent.equals(data), "another payload came back");
    await closed(socket, 1000);
  },
  async "empty message"() {
    const socket = await connect();
    assert.equal((await echoOf(socket, "")).data.length, 0);
    await closed(socket, 1000);
  },
  async "1 MiB message"() {
    const socket = await connect();
    const sent = Buffer.alloc(MIB, "0123456789abcdef!");
    const { data } = await echoOf(socket, sent);
    assert.ok(sent.equals(data), "another payload came back");
    await closed(socket, 1000);
  },
  async "fragmented message"() {
    const socket = await connect();
    socket.send("one ", { fin: false });
    socket.send("two ", { fin: false });
    socket.send("three");
    const [data] = await once(socket, "message");
    assert.equal(data.toString(), "one two three");
    await closed(socket, 1000);
  },
  async "1000 messages in a row, in order"() {
    const socket = await connect();
    const answers = [];
    const all = new Promise((resolve) => {
      socket.on("message", (data) => {
        answers.push(data.toString());
        if (answers.length === 1000) resolve();
      });
    });
    const sent = Array.from({ length: 1000 }, (_, i) => `message ${i}`);
    sent.forEach((message) => socket.send(message));
    await all;
    assert.deepEqual(answers, sent);
    await closed(socket, 1000);
  },
  async "ping is answered with its payload"() {
    const socket = await connect();
    socket.ping("are you there");
    const [payload] = await once(socket, "pong");
    assert.equal(payload.toString(), "are you there");
    await closed(socket, 1000);
  },
  async "close code comes back"() {
    const socket = await connect();
    assert.equal((await closed(socket, 3001, "done")).code, 3001);
  },
  async "permessage-deflate is offered and declined"() {
    const socket = await connect({ perMessageDeflate: true });
    assert.equal(socket.extensions, "");
    await closed(socket, 1000);
  },
  async "protocol version 8 is refused with 426"() {
    const socket = new WebSocket(url, { protocolVersion: 8 });
    const [, response] = await once(socket, "unexpected-response");
    assert.equal(response.statusCode, 426);
    assert.equal(response.headers["sec-websocket-version"], "13");
    response.destroy();
    socket.on("error", () => {});
    socket.terminate();
  },
};

function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${CHECK_TIMEOUT_MS} ms`)),
      CHECK_TIMEOUT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const url = process.argv[2];
let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await within(check());
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok ${name}: ${String(error.message).split("\n")[0]}`);
  }
}
console.log(`1..${Object.keys(checks).length}`);
process.exit(failed ? 1 : 0);
