// An echo server on uWebSockets: echo PORT MODE, where MODE is plain, no-context or takeover; with
// publish, every connection subscribes to a topic, which gets every message.

#include "App.h"

#include <cstdlib>
#include <iostream>
#include <string_view>

struct Nothing {};

static int wrong_use() {
    std::cerr << "echo: PORT and one of plain, no-context, takeover, publish are wanted\n";
    return 2;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        return wrong_use();
    }
    const int port = std::atoi(argv[1]);
    const std::string_view mode = argv[2];
    const bool publish = mode == "publish";
    const bool compress = mode != "plain" && !publish;
    uWS::CompressOptions compression = uWS::DISABLED;
    if (mode == "no-context") {
        compression = uWS::CompressOptions(uWS::SHARED_COMPRESSOR | uWS::SHARED_DECOMPRESSOR);
    } else if (mode == "takeover") {
        compression = uWS::CompressOptions(uWS::DEDICATED_COMPRESSOR | uWS::DEDICATED_DECOMPRESSOR);
    } else if (compress) {
        return wrong_use();
    }
    bool listening = false;
    uWS::App app;
    app.ws<Nothing>("/*", {
        .compression = compression,
        .maxPayloadLength = 1024 * 1024,
        .idleTimeout = 0,
        .maxBackpressure = 64 * 1024 * 1024,
        .sendPingsAutomatically = false,
        .open = [publish](auto *ws) {
            if (publish) {
                ws->subscribe("news");
            }
        },
        .message = [&app, publish, compress](auto *ws, std::string_view message,
                                             uWS::OpCode opcode) {
            if (publish) {
                app.publish("news", message, opcode);
            } else {
                ws->send(message, opcode, compress);
            }
        },
    });
    app.listen("127.0.0.1", port, [&listening](auto *socket) { listening = socket != nullptr; });
    app.run();
    std::cerr << "echo: could not listen on port " << port << "\n";
    return listening ? 0 : 1;
}
