// An echo server on ws (npm): server.mjs PORT MODE, where MODE is plain, no-context or takeover.

import process from "node:process";
import { WebSocketServer } from "ws";

const DEFLATE = { zlibDeflateOptions: { level: 6 }, threshold: 0 };
const MODES = {
  plain: false,
  "no-context": { ...DEFLATE, serverNoContextTakeover: true, clientNoContextTakeover: true },
  takeover: DEFLATE,
};

const [port, mode] = process.argv.slice(2);
if (!Object.hasOwn(MODES, mode)) {
  console.error("server.mjs: PORT and one of plain, no-context, takeover are wanted");
  process.exit(2);
}
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(port),
  perMessageDeflate: MODES[mode],
});
server.on("connection", (socket) => {
  socket.on("error", () => {});
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});
