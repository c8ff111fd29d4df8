/*
 * A load client for one HTTP/1.1 server on loopback: one thread, epoll, keep-alive.
 *
 *   load -p PORT -c CONNECTIONS -s SECONDS -r REQUEST_FILE [-k KEYS_FILE] [-n REQUESTS]
 *        [-R REQUESTS_PER_SECOND] [-g STAGGER_US] [-e EVENTS]
 *
 * REQUEST_FILE holds the whole request. KEYS_FILE holds secrets of one length, a line each: every
 * request takes the next one and puts it after "Bearer ". Without -R each connection sends as soon
 * as it is answered (closed loop); with -R requests have a time-table, and latency counts from the
 * moment at which a request was due, so a slow server cannot hide its queue (open loop). -g spreads
 * the first requests over time. -n ends the run after that many requests.
 *
 * An answer is an error unless its status is 2xx, its framing is whole, its body is not empty and,
 * with -e, it carries exactly EVENTS lines that start an event. After the time is up what is in
 * flight is answered (at most two seconds) but not counted in the rate: "answered" is for CPU time a
 * request. Prints one JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 16384, READ_BYTES = 262144, SAMPLES = 4000000, DRAIN_US = 2000000 };
typedef enum { IDLE, HEAD, COUNTED, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER } phase;

typedef struct {
    int fd, status, head_used, matched, line_used;
    phase phase;
    long left, body_bytes, events;
    long long sent_us, first_us;
    char head[HEAD_BYTES], line[64];
} conn;

static int port, connections = 1, epoll_fd, request_length, key_at = -1, key_length, keys, next_key;
static long max_requests, expected_events = -1, sent, answered, counted, counted_events, errors;
static long samples;
static double seconds = 1, rate;
static long long stagger_us, start_us, end_us, next_due_us, scheduled;
static char *request, *key_bytes;
static int *total_latency, *first_latency;
static int first_bad_status;

static long long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static char *read_file(const char *path, int *length) {
    FILE *f = fopen(path, "rb");
    if (!f) { perror(path); exit(2); }
    fseek(f, 0, SEEK_END);
    *length = ftell(f);
    rewind(f);
    char *bytes = calloc(1, *length + 1);
    if (fread(bytes, 1, *length, f) != (size_t)*length) { perror(path); exit(2); }
    fclose(f);
    return bytes;
}

static void load_keys(const char *path) {
    int length;
    key_bytes = read_file(path, &length);
    char *bearer = memmem(request, request_length, "Bearer ", 7);
    key_length = strcspn(key_bytes, "\n");
    if (!bearer || !key_length || (int)strcspn(bearer + 7, "\r") != key_length) {
        fprintf(stderr, "the request's key and the keys in %s differ in length\n", path);
        exit(2);
    }
    key_at = bearer + 7 - request;
    keys = length / (key_length + 1);
}

static void dial(conn *c) {
    int on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&a, sizeof a)) { perror("connect"); exit(1); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
    c->phase = IDLE;
}

static int may_send(long long now) {
    return now < end_us && (!max_requests || sent < max_requests);
}

static void send_request(conn *c, long long from_us) {
    if (keys) {
        memcpy(request + key_at, key_bytes + (long)next_key * (key_length + 1), key_length);
        next_key = (next_key + 1) % keys;
    }
    c->phase = HEAD;
    c->head_used = c->matched = c->line_used = 0;
    c->body_bytes = c->events = 0;
    c->first_us = 0;
    c->sent_us = from_us;
    sent++;
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != request_length) c->status = 0;
}

/* Closed loop: send at once. Open loop: send if a request of the time-table is already late. */
static void next_request(conn *c, long long now) {
    c->phase = IDLE;
    if (!may_send(now)) return;
    if (rate == 0) { send_request(c, now); return; }
    if (next_due_us > now) return;
    send_request(c, next_due_us);
    next_due_us = start_us + (long long)(++scheduled * 1e6 / rate);
}

static void fail(conn *c, int status) {
    errors++;
    if (!first_bad_status) first_bad_status = status ? status : -1;
    close(c->fd);
    dial(c);
}

static void finish(conn *c, long long now) {
    int is_whole = expected_events < 0 ? c->body_bytes > 0 : c->events == expected_events;
    answered++;
    if (c->status / 100 != 2 || !is_whole) {
        errors++;
        if (!first_bad_status) first_bad_status = c->status;
    } else if (now <= end_us) {
        counted++;
        counted_events += c->events;
        if (samples < SAMPLES) {
            total_latency[samples] = now - c->sent_us;
            first_latency[samples++] = (c->first_us ? c->first_us : now) - c->sent_us;
        }
    }
    next_request(c, now);
}

/* Counts "data: " at any place, also where a read or a chunk cuts it in two. */
static void take_body(conn *c, const char *bytes, long n, long long now) {
    static const char mark[] = "data: ";
    c->body_bytes += n;
    for (long i = 0; i < n; i++) {
        if (!c->matched) {
            const char *d = memchr(bytes + i, 'd', n - i);
            if (!d) return;
            i = d - bytes;
        }
        c->matched = bytes[i] == mark[c->matched] ? c->matched + 1 : bytes[i] == 'd';
        if (c->matched < 6) continue;
        c->matched = 0;
        c->events++;
        if (!c->first_us) c->first_us = now;
    }
}

/* Reads the head's framing. Returns 0 where there is none to go by. */
static int take_head(conn *c) {
    c->head[c->head_used] = 0;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->status = atoi(c->head + 9);
    if (strcasestr(c->head, "\r\ntransfer-encoding: chunked")) c->phase = CHUNK_SIZE;
    else if (length) { c->phase = COUNTED; c->left = atol(length + 17); }
    else return 0;
    return 1;
}

/* Returns how many bytes of a line were used; *done once its end was among them. */
static long take_line(conn *c, const char *bytes, long n, int *done) {
    const char *end = memchr(bytes, '\n', n);
    long used = end ? end - bytes + 1 : n;
    for (long i = 0; i < used && c->line_used < (int)sizeof c->line - 1; i++)
        c->line[c->line_used++] = bytes[i];
    *done = end != NULL;
    return used;
}

static long take_chunk_line(conn *c, const char *bytes, long n, long long now, int *is_over) {
    int done;
    long used = take_line(c, bytes, n, &done);
    if (!done) return used;
    c->line[c->line_used] = 0;
    int is_blank = c->line[0] == '\r';
    c->line_used = 0;
    if (c->phase == CHUNK_SIZE) {
        c->left = strtol(c->line, NULL, 16);
        c->phase = c->left ? CHUNK : TRAILER;
    } else if (c->phase == CHUNK_END) {
        c->phase = CHUNK_SIZE;
    } else if (is_blank) {
        *is_over = 1;
        finish(c, now);
    }
    return used;
}

static long take_counted(conn *c, const char *bytes, long n, long long now, int *is_over) {
    long used = n < c->left ? n : c->left;
    take_body(c, bytes, used, now);
    c->left -= used;
    if (c->left) return used;
    if (c->phase == CHUNK) { c->phase = CHUNK_END; return used; }
    *is_over = 1;
    finish(c, now);
    return used;
}

/* Returns how many bytes were used, or -1 where the answer's framing is broken. */
static long take_some(conn *c, const char *bytes, long n, long long now, int *is_over) {
    if (c->phase == IDLE) return -1;
    if (c->phase == COUNTED || c->phase == CHUNK) return take_counted(c, bytes, n, now, is_over);
    if (c->phase != HEAD) return take_chunk_line(c, bytes, n, now, is_over);
    long room = HEAD_BYTES - 1 - c->head_used, copied = n < room ? n : room;
    int searched = c->head_used > 3 ? c->head_used - 3 : 0, before = c->head_used;
    memcpy(c->head + c->head_used, bytes, copied);
    char *end = memmem(c->head + searched, before + copied - searched, "\r\n\r\n", 4);
    if (!end) { c->head_used += copied; return copied == n ? n : -1; }
    c->head_used = end + 4 - c->head;
    if (!take_head(c)) return -1;
    if (c->phase == COUNTED && !c->left) { *is_over = 1; finish(c, now); }
    return c->head_used - before;
}

static void receive(conn *c) {
    static char bytes[READ_BYTES];
    long n = recv(c->fd, bytes, sizeof bytes, 0);
    if (n < 0 && errno == EAGAIN) return;
    long long now = now_us();
    if (n <= 0 && c->phase == IDLE) { close(c->fd); dial(c); next_request(c, now); return; }
    if (n <= 0) { fail(c, 0); next_request(c, now); return; }
    for (long at = 0; at < n;) {
        int is_over = 0;
        long used = take_some(c, bytes + at, n - at, now, &is_over);
        if (used < 0 || (is_over && at + used < n)) { fail(c, c->status); next_request(c, now); return; }
        at += used;
    }
}

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static double percentile(const int *sorted, double share) {
    return samples ? sorted[(long)((samples - 1) * share)] / 1e3 : 0;
}

static void report(void) {
    qsort(total_latency, samples, sizeof(int), compare);
    qsort(first_latency, samples, sizeof(int), compare);
    printf("{\"seconds\":%.6f,\"sent\":%ld,\"answered\":%ld,\"counted\":%ld,\"events\":%ld,"
           "\"errors\":%ld,\"first_bad_status\":%d,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
           "\"first_p50_ms\":%.3f,\"first_p99_ms\":%.3f}\n",
           (end_us - start_us) / 1e6, sent, answered, counted, counted_events, errors, first_bad_status,
           percentile(total_latency, .5), percentile(total_latency, .99),
           percentile(first_latency, .5), percentile(first_latency, .99));
}

static void parse_arguments(int argc, char **argv) {
    const char *keys_file = NULL;
    for (int option; (option = getopt(argc, argv, "p:c:s:r:k:n:R:g:e:")) != -1;) switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'r': request = read_file(optarg, &request_length); break;
        case 'k': keys_file = optarg; break;
        case 'n': max_requests = atol(optarg); break;
        case 'R': rate = atof(optarg); break;
        case 'g': stagger_us = atoll(optarg); break;
        case 'e': expected_events = atol(optarg); break;
        default: exit(2);
    }
    if (!port || !request) { fprintf(stderr, "-p and -r are needed\n"); exit(2); }
    if (keys_file) load_keys(keys_file);
}

static int is_busy(const conn *all) {
    for (int i = 0; i < connections; i++) if (all[i].phase != IDLE) return 1;
    return 0;
}

/* Wakes for the time-table or for the next connection of a staggered start. */
static void arm_timer(int timer, long long due) {
    struct itimerspec t = {.it_value = {due / 1000000, due % 1000000 * 1000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
}

static void start_due(conn *all, int *started, long long now) {
    for (; *started < connections && start_us + *started * stagger_us <= now; ++*started)
        next_request(&all[*started], now);
    if (rate == 0) return;
    for (int i = 0; i < *started && next_due_us <= now; i++)
        if (all[i].phase == IDLE) next_request(&all[i], now);
}

static void run(conn *all, int timer) {
    struct epoll_event events[256];
    int started = 0;
    long long now = start_us;
    while (now < end_us || (is_busy(all) && now < end_us + DRAIN_US)) {
        start_due(all, &started, now);
        if (started < connections) arm_timer(timer, start_us + started * stagger_us);
        else if (rate > 0) arm_timer(timer, next_due_us > now ? next_due_us : now + 1000);
        int n = epoll_wait(epoll_fd, events, 256, 20);
        for (int i = 0; i < n; i++) if (events[i].data.ptr) receive(events[i].data.ptr);
        now = now_us();
        if (max_requests && sent >= max_requests && now < end_us && !is_busy(all)) end_us = now;
    }
}

int main(int argc, char **argv) {
    parse_arguments(argc, argv);
    total_latency = malloc(SAMPLES * sizeof(int));
    first_latency = malloc(SAMPLES * sizeof(int));
    epoll_fd = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event timing = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &timing);
    conn *all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) dial(&all[i]);
    start_us = next_due_us = now_us();
    end_us = start_us + (long long)(seconds * 1e6);
    run(all, timer);
    report();
    return 0;
}
