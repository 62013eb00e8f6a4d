module voicefleet.dev/bench/gorelay

go 1.24
