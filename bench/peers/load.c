/* The load of bench/relay.py: RTP-shaped datagrams with a time stamp, out of many sockets and back again.
 *
 *   load client  FLOWS PPS WARMUP_S SECONDS PREFIX CHECK_S   sockets come as inherited descriptors, numbers on stdin
 *   load echo    ADDRESS PORT                                one socket; answers each datagram with one of its size
 *
 * Python cannot send at these rates without being the thing that is measured, so this is C. Both ends run on one clock, so
 * each way's latency is taken at its receiver. Only datagrams of the measured window count (a byte in them says so). The echo
 * keeps whatever stands before the payload (an SPP header), so one program stands behind every kind of relay. A check goes
 * back under the relay's own address, which tells a relay with a kernel path that its owner takes media without a header.
 *
 * stdout of client: "begin\n", "end\n" around the window, then one line of JSON; echo: "ready\n", at SIGTERM one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long u64;
enum { PAYLOAD = 172, STAMP_AT = 16, WINDOW_AT = 24, FLOW_AT = 28, SPP = 38, BATCH = 64, SLOT = 2048, SUB = 32, BUCKETS = 64 * SUB };

static u64 histogram[BUCKETS], received, sent, refused, bytes_in;
static volatile sig_atomic_t stopping;

static u64 now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void stop(int number) { stopping = number; }

/* Buckets 3 % wide: the exponent, and five bits below the leading one. */
static void note(u64 ns) {
  if (ns < SUB) ns = SUB;
  int top = 63 - __builtin_clzll(ns);
  histogram[top * SUB + ((ns >> (top - 5)) & (SUB - 1))]++;
}

static void report(void) {
  printf("{\"sent\": %llu, \"received\": %llu, \"refused\": %llu, \"bytes_in\": %llu, \"histogram\": [", sent, received, refused,
         bytes_in);
  const char *comma = "";
  for (int i = 0; i < BUCKETS; i++)
    if (histogram[i]) {
      double low = (double)(1ull << (i / SUB)) * (1.0 + (i % SUB) / (double)SUB);
      printf("%s[%.0f, %llu]", comma, low * (1.0 + 0.5 / SUB), histogram[i]);
      comma = ", ";
    }
  printf("]}\n");
  fflush(stdout);
}

static void take(const unsigned char *payload, u64 t) {
  if (payload[WINDOW_AT] != 1) return;
  u64 stamp;
  memcpy(&stamp, payload + STAMP_AT, 8);
  note(t > stamp ? t - stamp : 0);
  received++;
}

static int echo(const char *host, int port) {
  int family = strchr(host, ':') ? AF_INET6 : AF_INET, size = 16 << 20, fd = socket(family, SOCK_DGRAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, host, &a.sin_addr);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
  if (bind(fd, (void *)&a, sizeof a)) return perror("bind"), 1;
  static unsigned char buffer[BATCH][SLOT];
  static struct sockaddr_in6 from[BATCH];
  static struct mmsghdr m[BATCH];
  static struct iovec v[BATCH];
  printf("ready\n");
  fflush(stdout);
  while (!stopping) {
    for (int i = 0; i < BATCH; i++) {
      v[i] = (struct iovec){buffer[i], SLOT};
      m[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &v[i], .msg_iovlen = 1};
    }
    int n = recvmmsg(fd, m, BATCH, MSG_WAITFORONE, NULL);
    if (n <= 0) continue;
    u64 t = now_ns();
    for (int i = 0; i < n; i++) {
      int head = m[i].msg_len > SPP && buffer[i][0] == 0x56 ? SPP : 0;
      v[i].iov_len = m[i].msg_len;
      if (head && buffer[i][head] < 4) { /* STUN */
        struct sockaddr_in *relay = (void *)&from[i];
        memcpy(buffer[i] + 30, &relay->sin_addr, 4);
        memcpy(buffer[i] + 36, &relay->sin_port, 2);
      }
      if (m[i].msg_len < (unsigned)head + PAYLOAD || (buffer[i][head] & 0xC0) != 0x80) continue;
      take(buffer[i] + head, t);
      memcpy(buffer[i] + head + STAMP_AT, &t, 8);
      sent += buffer[i][head + WINDOW_AT] == 1;
    }
    for (int done = 0; done < n;) {
      int k = sendmmsg(fd, m + done, n - done, 0);
      if (k <= 0) refused++, k = 1;
      done += k;
    }
  }
  report();
  return 0;
}

static int client(int flows, double pps, double warmup_s, double seconds, int prefix, double check_s) {
  int *fd = calloc(flows, sizeof *fd), poll = epoll_create1(0);
  unsigned char **check = calloc(flows, sizeof *check);
  int *check_bytes = calloc(flows, sizeof *check_bytes);
  for (int i = 0; i < flows; i++) {
    if (scanf("%d %d", &fd[i], &check_bytes[i]) != 2) return fprintf(stderr, "load: descriptor %d is missing\n", i), 1;
    if (check_bytes[i]) {
      check[i] = malloc(check_bytes[i]);
      for (int k = 0; k < check_bytes[i]; k++) scanf("%2hhx", &check[i][k]);
    }
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd[i]};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd[i], &e)) return perror("epoll_ctl"), 1;
  }
  unsigned char packet[PAYLOAD + 4] = {0}, in[SLOT];
  unsigned char *payload = packet + prefix;
  if (prefix) packet[0] = 0x40, packet[2] = 0, packet[3] = PAYLOAD; /* TURN ChannelData, channel 0x4000 */
  payload[0] = 0x80, payload[1] = 111;
  u64 start = now_ns(), open = start + warmup_s * 1e9, close = open + seconds * 1e9, end = close + 300000000, count = 0, checks = 0;
  int phase = 0;
  while (!stopping) {
    u64 t = now_ns();
    if (phase == 0 && t >= open) phase = 1, puts("begin"), fflush(stdout);
    if (phase == 1 && t >= close) phase = 2, puts("end"), fflush(stdout);
    if (t >= end) break;
    u64 due = (t - start) / 1e9 * pps;
    payload[WINDOW_AT] = phase;
    for (int burst = 0; phase < 2 && count < due && burst < 32; burst++, count++) {
      unsigned flow = count % flows, sequence = htons(count / flows);
      memcpy(payload + 2, &sequence, 2);
      memcpy(payload + FLOW_AT, &flow, 4);
      u64 stamp = now_ns();
      memcpy(payload + STAMP_AT, &stamp, 8);
      if (send(fd[flow], packet, PAYLOAD + prefix, MSG_DONTWAIT) < 0) refused++;
      sent += phase == 1;
    }
    if (check_s > 0)
      for (u64 want = (t - start) / 1e9 / check_s * flows; checks < want; checks++)
        send(fd[checks % flows], check[checks % flows], check_bytes[checks % flows], MSG_DONTWAIT);
    struct epoll_event ready[BATCH];
    t = now_ns();
    u64 next = phase < 2 ? start + (u64)((count + 1) / pps * 1e9) : end;
    u64 wait = next > t ? next - t : 0;
    struct timespec timeout = {wait / 1000000000, wait % 1000000000};
    int n = epoll_pwait2(poll, ready, BATCH, &timeout, NULL);
    for (int i = 0; i < n; i++) {
      int k = recv(ready[i].data.fd, in, sizeof in, MSG_DONTWAIT);
      bytes_in += k > 0 ? k : 0;
      int head = k >= PAYLOAD + 4 && in[0] == 0x40 ? 4 : 0;
      if (k >= PAYLOAD + head && (in[head] & 0xC0) == 0x80) take(in + head, now_ns());
    }
  }
  report();
  return 0;
}

int main(int argc, char **argv) {
  signal(SIGTERM, stop);
  struct sigaction s = {.sa_handler = stop};
  sigaction(SIGTERM, &s, NULL); /* no SA_RESTART: a blocked recvmmsg returns */
  if (argc == 4 && !strcmp(argv[1], "echo")) return echo(argv[2], atoi(argv[3]));
  if (argc == 8 && !strcmp(argv[1], "client"))
    return client(atoi(argv[2]), atof(argv[3]), atof(argv[4]), atof(argv[5]), atoi(argv[6]), atof(argv[7]));
  fprintf(stderr, "usage: see load.c\n");
  return 2;
}
