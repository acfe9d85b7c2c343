// The `ws` package of npm against a running echo server that compresses.
//
// What comes in: the URL, and what the server's key `compression` says. What goes out: one line
// per check, `ok NAME` or `not ok NAME: why`, then `1..N`; status 1 when a check failed. Each
// check is a connection with another offer: the answer must be one that RFC 7692 and the key
// allow, every message must come back, and fewer bytes than its payload where that is possible.

import { once } from "node:events";
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import path from "node:path";
import assert from "node:assert/strict";

const require = createRequire(path.join(process.env.WS_PACKAGES, "package.json"));
const { WebSocket } = require("ws");
const CHECK_TIMEOUT_MS = 10_000;
// A frame header, and what deflate adds to what it cannot make smaller.
const most = (length) => 100 + Math.ceil(length * 1.01);
const [url, compression] = process.argv.slice(2);

// Bytes that cannot be made smaller, the same in every run.
function noise(length, seed) {
  const blocks = Array.from({ length: Math.ceil(length / 32) },
    (_, i) => createHash("sha256").update(`${seed} ${i}`).digest());
  return Buffer.concat(blocks).subarray(0, length);
}

const RECORD = { id: 4711, name: "Grüße", tags: ["a", "b", "c"], position: [1.5, -2.25] };
const AGAIN = noise(4096, "again");
// [what, message, whether it can be made smaller]
const MESSAGES = [
  ["empty text", "", false],
  ["1 byte", Buffer.from([7]), false],
  ["1 KiB of JSON", JSON.stringify(Array(16).fill(RECORD)).slice(0, 1024), true],
  ["100 KB of text", "All work and no play makes Jack a dull boy.\n".repeat(2300), true],
  ["100 KB of noise", noise(100_000, "noise"), false],
  ["multibyte text", "Grüße, 世界 \u{1f30d}! ".repeat(800), true],
  ["empty binary", Buffer.alloc(0), false],
  ["4 KiB of noise", AGAIN, false],
];

// What is wrong with the server's answer to this offer (RFC 7692, section 7.1), or nothing.
function check(answer, offer) {
  const [name, ...rest] = answer.split(";").map((part) => part.trim());
  const has = Object.fromEntries(rest.map((part) => {
    const [key, value] = part.split("=");
    return [key, value ?? true];
  }));
  assert.equal(name, "permessage-deflate", `the server answered "${answer}"`);
  const known = ["server_no_context_takeover", "client_no_context_takeover",
    "server_max_window_bits", "client_max_window_bits"];
  assert.deepEqual(Object.keys(has).filter((key) => !known.includes(key)), [], answer);
  assert.equal(new Set(rest).size, rest.length, `a parameter twice: ${answer}`);
  if (offer.serverNoContextTakeover) assert.ok(has.server_no_context_takeover, answer);
  if (offer.serverMaxWindowBits) {
    assert.ok(Number(has.server_max_window_bits) <= offer.serverMaxWindowBits, answer);
  }
  if (offer.clientMaxWindowBits === false) assert.ok(!("client_max_window_bits" in has), answer);
  // Which window the server keeps, and lets us keep, is what its key is about.
  const server = compression !== "dedicated_window" || Boolean(offer.serverNoContextTakeover);
  assert.equal(Boolean(has.server_no_context_takeover), server, answer);
  if (!offer.clientNoContextTakeover) {
    assert.equal(Boolean(has.client_no_context_takeover), compression === "no_context", answer);
  }
  return has;
}

async function exchange(offer) {
  const socket = new WebSocket(url, { perMessageDeflate: { threshold: 0, ...offer } });
  const upgraded = once(socket, "upgrade");
  await once(socket, "open");
  const answer = (await upgraded)[0].headers["sec-websocket-extensions"] ?? "";
  const agreed = check(answer, offer);
  let waiting = [];
  socket.on("message", (data, isBinary) => waiting.shift()?.resolve({ data, isBinary }));
  socket.on("close", (code) => waiting.forEach(
    ({ reject }) => reject(new Error(`closed with ${code}`))));
  socket.on("error", (error) => waiting.forEach(({ reject }) => reject(error)));
  const echo = (message) => {
    socket.send(message);
    return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
  };
  const same = (what, message, { data, isBinary }) => {
    assert.equal(isBinary, typeof message !== "string", what);
    assert.ok(Buffer.from(message).equals(data), `${what}: another payload came back`);
  };
  // -> how many bytes the echo took on the wire
  const measured = async (what, message) => {
    const before = socket._socket.bytesRead;
    same(what, message, await echo(message));
    return socket._socket.bytesRead - before;
  };
  for (const [what, message, smaller] of MESSAGES) {
    const length = Buffer.byteLength(message);
    const bytes = await measured(what, message);
    const bound = smaller ? length / 2 : most(length);
    assert.ok(bytes <= bound, `${what}: ${bytes} bytes for ${length}, at most ${bound}`);
  }
  // The same noise again is short exactly when the server remembers the message before.
  const bytes = await measured("the same noise", AGAIN);
  if (agreed.server_no_context_takeover) {
    assert.ok(bytes >= AGAIN.length, `${bytes} bytes: it remembers what it said it would not`);
  } else if (compression === "dedicated_window" && !offer.serverMaxWindowBits) {
    assert.ok(bytes <= AGAIN.length / 2, `${bytes} bytes for noise that was just sent`);
  }
  // Without waiting for answers.
  const echoes = MESSAGES.map(([, message]) => echo(message));
  for (const [i, [what, message]] of MESSAGES.entries()) same(what, message, await echoes[i]);
  waiting = [];
  socket.close(1000);
  const [code] = await once(socket, "close");
  assert.equal(code, 1000);
  return answer;
}

// Every combination that ws can ask for; an undefined parameter is left to the server.
const yes = true;
const offers = [
  {},
  { serverNoContextTakeover: yes },
  { clientNoContextTakeover: yes },
  { serverNoContextTakeover: yes, clientNoContextTakeover: yes },
  { serverMaxWindowBits: 9 },
  { serverMaxWindowBits: 12, serverNoContextTakeover: yes },
  { serverMaxWindowBits: 15 },
  { clientMaxWindowBits: false },
  { clientMaxWindowBits: 9 },
  { clientMaxWindowBits: 12, clientNoContextTakeover: yes },
  { clientMaxWindowBits: 10, serverMaxWindowBits: 10 },
];

function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done in ${CHECK_TIMEOUT_MS} ms`)),
      CHECK_TIMEOUT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

let failed = 0;
for (const offer of offers) {
  const words = Object.entries(offer).map(([key, value]) => `${key} ${value}`);
  const name = words.join(", ") || "default";
  try {
    console.log(`ok ${name} -> ${await within(exchange(offer))}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok ${name}: ${String(error.message).split("\n")[0]}`);
  }
}
console.log(`1..${offers.length}`);
process.exit(failed ? 1 : 0);
