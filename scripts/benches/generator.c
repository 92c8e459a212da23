/* Load for one Socket.IO server: many clients on one thread, written so that it is never what is measured.
 *
 *   generator CLIENTS_FILE        one line per client: port, room id, user id, token; lines of a room stand together
 *
 * Commands come in on standard input, one a line; each is answered with one line of JSON:
 *   connect IN_FLIGHT             WebSocket, Engine.IO, CONNECT with the token
 *   join IN_FLIGHT                join_room
 *   step MODE RATE WARM SECONDS   MODE is "ephemeral" (typing) or "durable" (message); RATE is of the whole school.
 *                                 {"window":"open"} and {"window":"closed"} are printed around what is measured.
 *   hold SECONDS                  only answer pings
 *
 * Sends are scheduled; latency counts from the moment something was due, not from when it was sent, so that neither a
 * late generator nor a server that does not read can hide (no coordinated omission). A message carries that moment in
 * its text. `typing` has no room for it: the n-th typing event of a person is taken for that person's n-th command.
 * The last eight hex digits of a user id are the number of the client's line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NAMESPACE "/classroom,"
#define BODY (2 + sizeof(NAMESPACE) - 1) /* where the payload of "42/classroom," begins */
#define TOKEN_MAX 2048
#define READ_SIZE (256 * 1024)
#define RING (1 << 21)  /* commands whose ack is awaited */
#define HISTORY 512     /* typing commands of one client that are remembered */
#define SUB 64          /* histogram: sub-buckets per power of two, under 1.6 % error */
#define BUCKETS (40 * SUB)
#define BURST 64        /* sends between two looks at what came in */
#define STDIN UINT32_MAX
#define US 1000ull
#define SECOND 1000000000ull

enum state { NEW, OPENING, UPGRADING, CONNECTING, CONNECTED, JOINING, JOINED, DEAD };

typedef struct {
    int fd, port;
    enum state state;
    char room[37], user[37], *token;
    uint32_t first, members, place; /* the room: its first client, its size, our place in it */
    uint32_t typed;                 /* typing commands sent */
    uint64_t *history;              /* when they were due */
    uint32_t *seen;                 /* typing events received, by place of the sender */
    uint8_t *part;                  /* an incomplete frame */
    size_t part_size, part_room;
} client;

typedef struct { uint64_t count[BUCKETS], total; } histogram;

static client *clients;
static uint32_t client_count, in_state[DEAD + 1];
static int events_fd;
static histogram deliveries, acks;
static uint64_t due_at[RING], last_id;
static uint64_t window_from, window_to; /* nanoseconds; what was due in between is measured */
static uint64_t read_at;                /* when the bytes being parsed were read */
static uint64_t reads, frames, refused, unsent, resyncs, pings, delivered_ever;
static char filler[] = "the quick brown fox jumps over the lazy dog and away";

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static double own_cpu(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static uint64_t random_state;

static uint32_t random_number(void) { /* xorshift64* */
    random_state ^= random_state >> 12; random_state ^= random_state << 25; random_state ^= random_state >> 27;
    return (random_state * 2685821657736338717ull) >> 32;
}

/* Histograms, in microseconds. */

static int bucket(uint64_t value) {
    if (value < SUB) return value;
    int shift = 63 - __builtin_clzll(value) - 6;
    int index = (shift + 1) * SUB + (int)((value >> shift) - SUB);
    return index < BUCKETS ? index : BUCKETS - 1;
}

static double bucket_ms(int index) {
    if (index < SUB) return index / 1000.0;
    return (double)((uint64_t)(index % SUB + SUB) << (index / SUB - 1)) / 1000.0;
}

static void record(histogram *h, uint64_t due) {
    if (due < window_from || due >= window_to) return;
    h->count[bucket(read_at > due ? (read_at - due) / US : 0)]++;
    h->total++;
}

static double percentile(const histogram *h, double part) {
    uint64_t wanted = (uint64_t)(part * h->total), sum = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((sum += h->count[i]) > wanted) return bucket_ms(i);
    return h->total ? bucket_ms(BUCKETS - 1) : 0;
}

/* Connections. */

static void move(client *c, enum state to) {
    in_state[c->state]--;
    in_state[to]++;
    c->state = to;
}

static void bury(client *c, const char *why) {
    static int told;
    if (c->state == DEAD) return;
    if (!told++) fprintf(stderr, "generator: a client was lost (%s) in state %d\n", why, c->state);
    close(c->fd);
    move(c, DEAD);
}

static int send_text(client *c, const char *text, size_t size) {
    static const uint8_t mask[4] = {0x12, 0x34, 0x56, 0x78};
    uint8_t frame[TOKEN_MAX + 512];
    size_t head = size < 126 ? 2 : 4;
    frame[0] = 0x81;
    frame[1] = 0x80 | (size < 126 ? size : 126);
    if (size >= 126) { frame[2] = size >> 8; frame[3] = size & 255; }
    memcpy(frame + head, mask, 4);
    for (size_t i = 0; i < size; i++) frame[head + 4 + i] = text[i] ^ mask[i & 3];
    ssize_t sent = send(c->fd, frame, head + 4 + size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == (ssize_t)(head + 4 + size)) return 1;
    unsent++;
    if (sent >= 0) bury(c, "it does not read"); /* half a frame is out: nothing can follow */
    return 0;
}

static void watch(int fd, uint32_t key, uint32_t what, int operation) {
    struct epoll_event event = {.events = what, .data.u32 = key};
    epoll_ctl(events_fd, operation, fd, &event);
}

static void open_client(uint32_t index) {
    client *c = &clients[index];
    int one = 1;
    struct linger reset = {1, 0}; /* no TIME_WAIT: the next run needs the ports */
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(c->port), .sin_addr.s_addr = htonl(0x7f000001)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) { perror("generator: socket"); exit(1); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    move(c, OPENING);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) { bury(c, strerror(errno)); return; }
    watch(c->fd, index, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void request_upgrade(client *c, uint32_t index) {
    char text[400];
    int size = snprintf(text, sizeof text,
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", c->port);
    if (send(c->fd, text, size, MSG_NOSIGNAL) != size) { bury(c, "the handshake could not be sent"); return; }
    move(c, UPGRADING);
    watch(c->fd, index, EPOLLIN, EPOLL_CTL_MOD);
}

static void join(client *c) {
    char text[128];
    int size = snprintf(text, sizeof text, "42" NAMESPACE "0[\"join_room\",{\"room_id\":\"%s\",\"limit\":1}]", c->room);
    move(c, JOINING);
    send_text(c, text, size);
}

/* What comes in. */

static const char *find(const char *in, size_t size, const char *what, size_t *hint) {
    size_t length = strlen(what);
    if (*hint + length <= size && !memcmp(in + *hint, what, length)) return in + *hint + length;
    const char *at = memmem(in, size, what, length);
    if (!at) return NULL;
    *hint = at - in;
    return at + length;
}

static void take_message(const char *text, size_t size) {
    static size_t hint;
    const char *stamp = find(text, size, "\"text\":\"", &hint);
    uint64_t due = 0;
    if (!stamp || stamp + 16 > text + size) return;
    for (int i = 0; i < 16; i++) due = due * 10 + (stamp[i] - '0');
    delivered_ever++;
    record(&deliveries, due * US);
}

static void take_typing(client *c, const char *text, size_t size) {
    static size_t hint;
    const char *user = find(text, size, "\"user_id\":\"", &hint);
    uint32_t index = 0;
    if (!user || user + 36 > text + size) return;
    for (int i = 28; i < 36; i++) index = index << 4 | (user[i] <= '9' ? user[i] - '0' : user[i] - 'a' + 10);
    if (index - c->first >= c->members) return;
    client *sender = &clients[index];
    uint32_t number = c->seen[sender->place]++;
    uint64_t due = sender->history[number % HISTORY];
    if (sender->typed - number > HISTORY) due = window_from; /* forgotten, so very late: what was sent first is no better */
    delivered_ever++;
    record(&deliveries, due);
}

static void take_ack(client *c, const char *text, size_t size) {
    uint64_t id = 0;
    size_t at = BODY;
    while (at < size && text[at] >= '0' && text[at] <= '9') id = id * 10 + text[at++] - '0';
    int ok = size - at > 10 && !memcmp(text + at, "[{\"ok\":true", 11);
    static int told;
    if (!ok && !told++) fprintf(stderr, "generator: refused: %.*s\n", (int)size, text);
    if (!ok) refused++;
    if (!id) move(c, ok ? JOINED : CONNECTED);
    else if (ok) record(&acks, due_at[id % RING]);
}

static void take_socketio(client *c, const char *text, size_t size) {
    const char *body = text + BODY;
    size_t left = size > BODY ? size - BODY : 0;
    if (text[1] == '2' && left > 11 && !memcmp(body, "[\"message\",", 11)) take_message(text, size);
    else if (text[1] == '2' && left > 10 && !memcmp(body, "[\"typing\",", 10)) take_typing(c, text, size);
    else if (text[1] == '2' && left > 17 && !memcmp(body, "[\"resync_required", 17)) resyncs++;
    else if (text[1] == '3') take_ack(c, text, size);
    else if (text[1] == '0') move(c, CONNECTED);
    else if (text[1] == '1' || text[1] == '4') bury(c, "the server put it out");
}

static void take_packet(client *c, const char *text, size_t size) {
    char hello[TOKEN_MAX + 64];
    frames++;
    if (size > 1 && text[0] == '4') take_socketio(c, text, size);
    else if (size && text[0] == '2') { pings++; send_text(c, "3", 1); }
    else if (size && text[0] == '0') {
        move(c, CONNECTING);
        send_text(c, hello, snprintf(hello, sizeof hello, "40" NAMESPACE "{\"token\":\"%s\"}", c->token));
    }
}

/* Returns where the first incomplete frame begins. */
static uint8_t *take_frames(client *c, uint8_t *p, uint8_t *end) {
    while (end - p >= 2 && c->state != DEAD) {
        uint64_t size = p[1] & 127;
        size_t head = size < 126 ? 2 : size == 126 ? 4 : 10;
        if ((size_t)(end - p) < head) break;
        if (head > 2) size = 0;
        for (size_t i = 2; i < head; i++) size = size << 8 | p[i];
        if ((uint64_t)(end - p) < head + size) break;
        if ((p[0] & 15) == 1) take_packet(c, (char *)p + head, size);
        else if ((p[0] & 15) == 8) bury(c, "the server closed it");
        p += head + size;
    }
    return p;
}

static uint8_t *take_handshake(client *c, uint8_t *p, uint8_t *end) {
    uint8_t *blank = memmem(p, end - p, "\r\n\r\n", 4);
    if (!blank) return p;
    if (memcmp(p, "HTTP/1.1 101", 12)) { bury(c, "the handshake was refused"); return end; }
    move(c, CONNECTING);
    return blank + 4;
}

static void keep(client *c, const uint8_t *from, size_t size) {
    c->part_size = size;
    if (!size) return;
    if (size > c->part_room) c->part = realloc(c->part, c->part_room = size * 2);
    memcpy(c->part, from, size);
}

static void read_client(client *c) {
    static uint8_t *buffer;
    static size_t room;
    if (room < c->part_size + READ_SIZE) buffer = realloc(buffer, room = c->part_size + READ_SIZE);
    memcpy(buffer, c->part, c->part_size);
    ssize_t got = recv(c->fd, buffer + c->part_size, READ_SIZE, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { bury(c, got ? strerror(errno) : "end of stream"); return; }
    reads++;
    read_at = now();
    uint8_t *p = buffer, *end = buffer + c->part_size + got;
    if (c->state == UPGRADING) p = take_handshake(c, p, end);
    if (c->state > UPGRADING) p = take_frames(c, p, end);
    keep(c, p, end - p);
}

/* Handles what is there, waiting for it until `until`. Returns true when a command waits. */
static int pump(uint64_t until) {
    static struct epoll_event events[1024];
    uint64_t at = now();
    uint64_t wait = until > at ? until - at : 0;
    struct timespec timeout = {wait / SECOND, wait % SECOND};
    struct pollfd any = {events_fd, POLLIN, 0};
    int command = 0;
    if (wait) ppoll(&any, 1, &timeout, NULL); /* nanoseconds, where epoll_wait has milliseconds */
    int count = epoll_wait(events_fd, events, 1024, 0);
    for (int i = 0; i < count; i++) {
        uint32_t index = events[i].data.u32;
        client *c = &clients[index];
        if (index == STDIN) command = 1;
        else if (c->state == OPENING && !(events[i].events & (EPOLLERR | EPOLLHUP))) request_upgrade(c, index);
        else if (c->state != DEAD) read_client(c);
    }
    return command;
}

/* Commands. */

static void bring_all(enum state from, enum state to, uint32_t in_flight, void (*start)(uint32_t), const char *name) {
    uint64_t began = now(), give_up = began + 120 * SECOND;
    uint32_t next = 0, done = in_state[to];
    while (in_state[to] + in_state[DEAD] < client_count && now() < give_up) {
        uint32_t under_way = client_count - in_state[from] - in_state[to] - in_state[DEAD];
        for (uint32_t looked = 0; under_way < in_flight && looked < client_count && in_state[from]; looked++, next++)
            if (clients[next % client_count].state == from) { start(next % client_count); under_way++; }
        pump(now() + SECOND / 100);
    }
    printf("{\"%s\":%u,\"seconds\":%.4f,\"dead\":%u,\"refused\":%llu}\n", name, in_state[to] - done,
           (now() - began) / 1e9, in_state[DEAD], (unsigned long long)refused);
}

static void join_client(uint32_t index) { join(&clients[index]); }

static int fresh_uuid(char *out, size_t size) { /* random, as crypto.randomUUID() of a browser */
    uint32_t a = random_number(), b = random_number(), c = random_number(), d = random_number();
    return snprintf(out, size, "%08x-%04x-4%03x-8%03x-%04x%08x", a, b >> 16, b & 0xfff, c >> 20, c & 0xffff, d);
}

static uint32_t send_command(client *c, int durable, uint64_t due) {
    char text[400], id[40];
    uint64_t number = ++last_id;
    int size;
    if (c->state != JOINED) { unsent++; return 0; }
    due_at[number % RING] = due;
    if (durable) {
        fresh_uuid(id, sizeof id);
        size = snprintf(text, sizeof text,
            "42" NAMESPACE "%llu[\"message\",{\"room_id\":\"%s\",\"id\":\"%s\",\"text\":\"%016llu %s\"}]",
            (unsigned long long)number, c->room, id, (unsigned long long)(due / US), filler);
        return send_text(c, text, size) ? c->members : 0;
    }
    size = snprintf(text, sizeof text, "42" NAMESPACE "%llu[\"typing\",{\"room_id\":\"%s\",\"on\":%s}]",
                    (unsigned long long)number, c->room, c->typed & 1 ? "false" : "true");
    c->history[c->typed % HISTORY] = due;
    if (!send_text(c, text, size)) return 0;
    c->typed++;
    return c->members - 1;
}

static client *random_sender(void) { /* of the first server; those of others only listen */
    client *c;
    do c = &clients[random_number() % client_count]; while (c->port != clients->port);
    return c;
}

static void forget_typing(void) { /* what is still missing is lost: count from here */
    for (uint32_t i = 0; i < client_count; i++)
        for (uint32_t place = 0; place < clients[i].members; place++)
            clients[i].seen[place] = clients[clients[i].first + place].typed;
}

static void drain(uint64_t sent, uint64_t expected) {
    uint64_t give_up = now() + 15 * SECOND, last = delivered_ever, changed = now();
    while (now() < give_up && (deliveries.total < expected || acks.total < sent)) {
        pump(now() + SECOND / 50);
        if (delivered_ever != last) { last = delivered_ever; changed = now(); }
        else if (now() - changed > 3 * SECOND / 2) break;
    }
    for (changed = now() + SECOND / 20; now() < changed;) pump(changed); /* what was due behind the window */
}

static void report(double rate, double seconds, uint64_t sent, uint64_t expected, uint64_t arrived,
                   double cpu, uint64_t in, uint64_t got) {
    printf("{\"rate\":%.1f,\"seconds\":%.4f,\"sent\":%llu,\"unsent\":%llu,\"refused\":%llu,\"acked\":%llu,"
           "\"expected\":%llu,\"delivered\":%llu,\"dead\":%u,\"resyncs\":%llu,\"generator_cpu\":%.4f,"
           "\"arrived\":%llu,\"reads\":%llu,\"frames\":%llu,\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f,"
           "\"ack_p50\":%.3f,\"ack_p99\":%.3f,\"ack_p999\":%.3f}\n",
           rate, seconds, (unsigned long long)sent, (unsigned long long)unsent, (unsigned long long)refused,
           (unsigned long long)acks.total, (unsigned long long)expected, (unsigned long long)deliveries.total,
           in_state[DEAD], (unsigned long long)resyncs, cpu, (unsigned long long)arrived, (unsigned long long)in, (unsigned long long)got,
           percentile(&deliveries, .5), percentile(&deliveries, .99), percentile(&deliveries, .999),
           percentile(&acks, .5), percentile(&acks, .99), percentile(&acks, .999));
}

static void step(int durable, double rate, double warm, double seconds) {
    uint64_t begin = now(), next = 0, sent = 0, expected = 0, due, from_reads = 0, from_frames = 0, arrived = 0;
    double cpu = 0, gap = 1e9 / rate;
    int open = 0;
    memset(&deliveries, 0, sizeof deliveries);
    memset(&acks, 0, sizeof acks);
    unsent = refused = resyncs = 0;
    window_from = (begin + (uint64_t)(warm * 1e9)) / US * US; /* a stamp has whole microseconds */
    window_to = window_from + (uint64_t)(seconds * 1e9);
    for (uint64_t at; (at = now()) < window_to; pump(due < window_to ? due : window_to)) {
        if (!open && at >= window_from) {
            open = 1; cpu = own_cpu(); from_reads = reads; from_frames = frames; arrived = delivered_ever;
            puts("{\"window\":\"open\"}"); fflush(stdout);
        }
        for (int burst = 0; (due = (begin + (uint64_t)(next * gap)) / US * US) <= at && due < window_to && burst < BURST; burst++, next++) {
            uint32_t reached = send_command(random_sender(), durable, due);
            if (due >= window_from) { sent++; expected += reached; }
        }
    }
    cpu = own_cpu() - cpu; from_reads = reads - from_reads; from_frames = frames - from_frames;
    arrived = delivered_ever - arrived;
    puts("{\"window\":\"closed\"}"); fflush(stdout);
    drain(sent, expected);
    report(rate, seconds, sent, expected, arrived, cpu, from_reads, from_frames);
    forget_typing();
}

static void hold(double seconds) {
    uint64_t until = now() + (uint64_t)(seconds * 1e9), before = pings;
    while (now() < until) pump(until);
    printf("{\"pings\":%llu,\"dead\":%u}\n", (unsigned long long)(pings - before), in_state[DEAD]);
}

static int obey(void) {
    char line[200], mode[20];
    double rate, warm, seconds;
    unsigned in_flight;
    if (!fgets(line, sizeof line, stdin)) return 0;
    if (sscanf(line, "connect %u", &in_flight) == 1) bring_all(NEW, CONNECTED, in_flight, open_client, "connected");
    else if (sscanf(line, "join %u", &in_flight) == 1) bring_all(CONNECTED, JOINED, in_flight, join_client, "joined");
    else if (sscanf(line, "step %19s %lf %lf %lf", mode, &rate, &warm, &seconds) == 4)
        step(!strcmp(mode, "durable"), rate, warm, seconds);
    else if (sscanf(line, "hold %lf", &seconds) == 1) hold(seconds);
    else { fprintf(stderr, "generator: unknown command %s", line); return 0; }
    fflush(stdout);
    return 1;
}

static void add_client(const char *line) {
    static uint32_t room_for;
    static char token[TOKEN_MAX];
    if (client_count == room_for) clients = realloc(clients, (room_for = room_for * 2 + 64) * sizeof *clients);
    client *c = memset(&clients[client_count], 0, sizeof *c);
    if (sscanf(line, "%d %36s %36s %2047s", &c->port, c->room, c->user, token) != 4) { fprintf(stderr, "generator: bad line\n"); exit(1); }
    c->token = strdup(token);
    c->history = calloc(HISTORY, sizeof *c->history);
    c->first = client_count && !strcmp(c[-1].room, c->room) ? c[-1].first : client_count;
    c->place = client_count++ - c->first;
}

static void read_clients(const char *path) {
    char line[TOKEN_MAX + 200];
    FILE *file = fopen(path, "r");
    if (!file) { perror(path); exit(1); }
    while (fgets(line, sizeof line, file)) add_client(line);
    fclose(file);
    for (uint32_t i = 0; i < client_count; i++) clients[clients[i].first].members++;
    for (uint32_t i = 0; i < client_count; i++) {
        clients[i].members = clients[clients[i].first].members;
        clients[i].seen = calloc(clients[i].members, sizeof *clients[i].seen);
    }
    in_state[NEW] = client_count;
}

int main(int count, char **arguments) {
    struct rlimit files;
    if (count != 2) { fprintf(stderr, "generator CLIENTS_FILE\n"); return 2; }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1);
    setvbuf(stdin, NULL, _IONBF, 0); /* nothing may wait in a buffer that epoll cannot see */
    random_state = now() ^ (uint64_t)getpid() << 40; /* ids must not come twice from two runs */
    read_clients(arguments[1]);
    events_fd = epoll_create1(0);
    watch(0, STDIN, EPOLLIN, EPOLL_CTL_ADD);
    for (int running = 1; running;)
        if (pump(now() + SECOND)) running = obey();
    return 0;
}
