// Headless Chromium against a running echo server.
//
// What comes in: the URL, the port of a page whose origin the server allows, the browser's
// program, and what the server's key `compression` says. What goes out: one line per check,
// `ok NAME` or `not ok NAME: why`, then `1..N`; status 1 when a check failed. The page posts its
// results, so nothing has to talk to the browser.

import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";

const PAGE_TIMEOUT_MS = 60_000;
const [url, allowedPort, program, compression] = process.argv.slice(2);
// [port, query]; and how many checks those pages make: four from the allowed page and one from
// the foreign one, or three about compression.
const [visits, CHECKS] = compression === "off" ?
  [[[Number(allowedPort), ""], [0, "&foreign"]], 5] :
  [[[Number(allowedPort), `&compression=${compression}`]], 3];
const page = fs.readFileSync(new URL("page.html", import.meta.url));

// Serves the page on `port` and resolves `results` with what the page posts.
async function serve(port) {
  let report;
  const results = new Promise((resolve) => { report = resolve; });
  const server = http.createServer(async (request, response) => {
    if (request.method === "POST" && request.url === "/result") {
      const chunks = await request.toArray();
      response.end();
      report(JSON.parse(Buffer.concat(chunks).toString()));
      return;
    }
    const found = request.url.startsWith("/page");
    response.writeHead(found ? 200 : 404, { "Content-Type": "text/html; charset=utf-8" });
    response.end(found ? page : "");
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return { results, port: server.address().port };
}

// Opens the page and waits for its results; the browser ends either way.
async function visit(site, query) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "hioload-chromium-"));
  const log = [];
  const browser = spawn(program, [
    "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    // Chromium has no sandbox for root, and a container often has none for anybody.
    "--no-sandbox", `--user-data-dir=${profile}`,
    `http://127.0.0.1:${site.port}/page?url=${encodeURIComponent(url)}${query}`,
  ], { stdio: ["ignore", "ignore", "pipe"], detached: true });
  browser.stderr.on("data", (data) => log.push(data));
  const exited = once(browser, "exit");
  let timer;
  const failed = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the page posted nothing")), PAGE_TIMEOUT_MS);
    exited.then(([status]) => reject(new Error(`the browser ended with status ${status}`)), reject);
  });
  try {
    return await Promise.race([site.results, failed]);
  } catch (error) {
    process.stderr.write(Buffer.concat(log).subarray(-3000));
    throw error;
  } finally {
    clearTimeout(timer);
    end(browser);
    await exited.catch(() => {});
    remove(profile);
  }
}

// Ends the browser with its helpers: detached, it leads a process group of its own.
function end(browser) {
  try {
    process.kill(-browser.pid, "SIGKILL");
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

// A helper that is still dying may write into the profile meanwhile: that is no verdict on the
// server.
function remove(profile) {
  try {
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  } catch (error) {
    process.stderr.write(`the browser's profile ${profile} is left behind: ${error.message}\n`);
  }
}

let printed = 0;
let failures = 0;
for (const [port, query] of visits) {
  try {
    for (const { name, why } of await visit(await serve(port), query)) {
      printed += 1;
      failures += why === null ? 0 : 1;
      console.log(why === null ? `ok ${name}` : `not ok ${name}: ${why}`);
    }
  } catch (error) {
    failures += 1;
    console.log(`not ok page${query}: ${error.message}`);
  }
}
console.log(`1..${CHECKS}`);
process.exit(failures || printed !== CHECKS ? 1 : 0);
