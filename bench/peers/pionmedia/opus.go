package main

// libopus through cgo, with just the calls that this program needs.

/*
#cgo LDFLAGS: -l:libopus.so.0
#include <stdint.h>
typedef struct OpusEncoder OpusEncoder;
typedef struct OpusDecoder OpusDecoder;
OpusEncoder *opus_encoder_create(int32_t rate, int channels, int application, int *error);
OpusDecoder *opus_decoder_create(int32_t rate, int channels, int *error);
int32_t opus_encode(OpusEncoder *, const int16_t *pcm, int samples, unsigned char *out, int32_t most);
int opus_decode(OpusDecoder *, const unsigned char *data, int32_t length, int16_t *pcm, int most, int fec);
int opus_encoder_ctl(OpusEncoder *, int request, ...);
const char *opus_get_version_string(void);
static int set(OpusEncoder *encoder, int request, int value) { return opus_encoder_ctl(encoder, request, value); }
*/
import "C"

import "math/bits"

const (
	voip          = 2048
	setBitrate    = 4002
	setComplexity = 4010
	setDTX        = 4016
	setSignal     = 4024
	signalVoice   = 3001
	longestMs     = 120
)

type encoder struct {
	state *C.OpusEncoder
	pcm   [mulawSamples]int16
	out   [1500]byte
}

type decoder struct {
	state *C.OpusDecoder
	pcm   [mulawRate * longestMs / 1000]int16
}

func opusVersion() string { return C.GoString(C.opus_get_version_string()) }

func newEncoder(bitrate, complexity int) *encoder {
	var problem C.int
	made := &encoder{state: C.opus_encoder_create(mulawRate, 1, voip, &problem)}
	for request, value := range map[int]int{setBitrate: bitrate, setComplexity: complexity, setDTX: 1, setSignal: signalVoice} {
		C.set(made.state, C.int(request), C.int(value))
	}
	return made
}

func newDecoder() *decoder {
	var problem C.int
	return &decoder{state: C.opus_decoder_create(mulawRate, 1, &problem)}
}

func (e *encoder) encode(codes []byte) []byte {
	for at, code := range codes {
		e.pcm[at] = expand(code)
	}
	length := C.opus_encode(e.state, (*C.int16_t)(&e.pcm[0]), mulawSamples, (*C.uchar)(&e.out[0]), C.int32_t(len(e.out)))
	if length < 0 {
		return nil
	}
	return append([]byte(nil), e.out[:length]...)
}

func (d *decoder) decode(packet []byte) []byte {
	if len(packet) == 0 {
		return nil
	}
	samples := C.opus_decode(d.state, (*C.uchar)(&packet[0]), C.int32_t(len(packet)), (*C.int16_t)(&d.pcm[0]), C.int(len(d.pcm)), 0)
	codes := make([]byte, max(0, int(samples)))
	for at := range codes {
		codes[at] = compress(d.pcm[at])
	}
	return codes
}

// ITU-T G.711 µ-law.
func compress(sample int16) byte {
	sign, magnitude := byte(0), int(sample)
	if magnitude < 0 {
		sign, magnitude = 0x80, -magnitude
	}
	magnitude = min(magnitude, 32635) + 0x84
	exponent := bits.Len(uint(magnitude)) - 8
	return ^(sign | byte(exponent)<<4 | byte(magnitude>>(exponent+3))&0x0F)
}

func expand(code byte) int16 {
	code = ^code
	magnitude := (int(code&0x0F)<<3+0x84)<<(code>>4&7) - 0x84
	if code&0x80 != 0 {
		return int16(-magnitude)
	}
	return int16(magnitude)
}
