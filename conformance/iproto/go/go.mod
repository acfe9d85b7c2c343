module hioload/conformance/iproto

go 1.24.0

require github.com/Educentr/go-iproto v0.0.0
