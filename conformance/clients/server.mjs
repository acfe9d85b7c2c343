// An echo server made of the `ws` package of npm, with permessage-deflate as the flags say.
//
// What comes in: --addr HOST:PORT (port 0: any) and what the server asks of permessage-deflate:
// --server-no-context-takeover, --client-no-context-takeover, --server-max-window-bits N,
// --client-max-window-bits N, or --off. With --config FILE its key `compression` says it instead,
// and --reactor is taken and not used: so it can stand where the runners want a server. What goes
// out: one line `listening on PORT`, then for every connection the line `extensions: ` with what
// was agreed; it echoes until SIGTERM, and ends with status 0.
//
// `ws` is fetched into a cache by `run`, which sets WS_PACKAGES to that folder.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { parseArgs } from "node:util";

const require = createRequire(path.join(process.env.WS_PACKAGES, "package.json"));
const { WebSocketServer } = require("ws");
const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

const { values: flags } = parseArgs({
  options: {
    addr: { type: "string", default: "127.0.0.1:0" },
    config: { type: "string" },
    reactor: { type: "string" },
    off: { type: "boolean" },
    "server-no-context-takeover": { type: "boolean" },
    "client-no-context-takeover": { type: "boolean" },
    "server-max-window-bits": { type: "string" },
    "client-max-window-bits": { type: "string" },
  },
});

// What `ws` is told: undefined leaves a parameter to the client. The threshold is for takeover
// alone, and 0, so that every message is compressed in every combination.
function deflateOptions() {
  const compression = flags.config &&
    /^compression = "(\w+)"$/m.exec(fs.readFileSync(flags.config, "utf8"))?.[1];
  if (flags.off || (flags.config && (compression ?? "off") === "off")) return false;
  const bits = (text) => (text === undefined ? undefined : Number(text));
  return {
    threshold: 0,
    serverNoContextTakeover: flags["server-no-context-takeover"] ||
      compression === "no_context" || undefined,
    clientNoContextTakeover: flags["client-no-context-takeover"] ||
      compression === "no_context" || undefined,
    serverMaxWindowBits: bits(flags["server-max-window-bits"]),
    clientMaxWindowBits: bits(flags["client-max-window-bits"]),
  };
}

const [, host, port] = /^(.*):(\d+)$/.exec(flags.addr);
const server = new WebSocketServer({
  host,
  port: Number(port),
  maxPayload: MESSAGE_BYTES_MAX,
  perMessageDeflate: deflateOptions(),
});
server.on("headers", (headers) => {
  const agreed = headers.find((line) => /^sec-websocket-extensions:/i.test(line));
  console.log(`extensions: ${agreed ? agreed.slice(agreed.indexOf(":") + 1).trim() : "none"}`);
});
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on("error", () => {}); // the peer broke the protocol: ws closes with the code due
});
server.on("listening", () => console.log(`listening on ${server.address().port}`));
process.on("SIGTERM", () => process.exit(0));
