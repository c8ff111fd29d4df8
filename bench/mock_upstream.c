/*
 * An OpenAI-compatible upstream that costs next to nothing: one thread, epoll, keep-alive.
 *
 *   mock_upstream BURST_CHUNKS PACED_CHUNKS GAP_US
 *
 * Listens on a free loopback port and prints it. Three answers:
 *   - a path that starts with /auth: 204 without a body (what nginx's auth_request asks);
 *   - a body with "stream":true: server-sent events, one send() a chunk; all at once, or every
 *     GAP_US where the model's name ends in "-paced";
 *   - anything else: one JSON completion with its usage.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_BYTES = 65536, EVENTS = 256 };

typedef struct conn {
    int fd, used, chunks_left, streaming, gone;
    long long due_us;
    struct conn *next;
    char input[INPUT_BYTES];
} conn;

typedef struct { conn *head, *tail; int length; } queue;
typedef struct { char bytes[2048]; int length; } message;

static int burst_chunks, paced_chunks, epoll_fd, timer_fd;
static long long gap_us;
static queue burst, paced; /* one gap for all, so a queue in order of arrival is in order of time */
static message json_answer, stream_head, chunk, last_chunks, auth_answer;
static char *answer_serial;

static long long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void push(queue *q, conn *c) {
    c->next = NULL;
    if (q->tail) q->tail->next = c; else q->head = c;
    q->tail = c;
    q->length++;
}

static conn *pop(queue *q) {
    conn *c = q->head;
    q->head = c->next;
    if (!q->head) q->tail = NULL;
    q->length--;
    return c;
}

static int send_all(conn *c, const message *m) {
    for (int sent = 0; sent < m->length;) {
        int n = send(c->fd, m->bytes + sent, m->length - sent, MSG_NOSIGNAL);
        if (n > 0) { sent += n; continue; }
        if (n < 0 && errno != EAGAIN && errno != EINTR) return -1;
        struct pollfd p = {.fd = c->fd, .events = POLLOUT};
        if (poll(&p, 1, 1000) == 0) return -1;
    }
    return 0;
}

static void drop(conn *c) { close(c->fd); free(c); }

/* The peer went away. A connection that a queue still holds is freed when its turn comes. */
static void leave(conn *c) {
    if (!c->streaming) { drop(c); return; }
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    c->gone = 1;
}

static void start_stream(conn *c, int is_paced) {
    send_all(c, &stream_head);
    c->streaming = 1;
    c->chunks_left = is_paced ? paced_chunks : burst_chunks;
    c->due_us = now_us() + gap_us;
    push(is_paced ? &paced : &burst, c);
}

/* Returns the length of the request at the head of the buffer, or 0 while it is incomplete. */
static int request_length(conn *c, int *body_at) {
    char *end = memmem(c->input, c->used, "\r\n\r\n", 4);
    if (!end) return 0;
    *body_at = end + 4 - c->input;
    *end = 0; /* so that strcasestr stops at the end of the head */
    char *length = strcasestr(c->input, "\r\ncontent-length:");
    int is_chunked = strcasestr(c->input, "\r\ntransfer-encoding: chunked") != NULL;
    *end = '\r';
    int total = *body_at + (length ? atoi(length + 17) : 0);
    if (is_chunked) {
        char *last = memmem(c->input + *body_at, c->used - *body_at, "0\r\n\r\n", 5);
        if (!last) return 0;
        total = last + 5 - c->input;
    }
    return c->used < total ? 0 : total;
}

static void answer(conn *c) {
    int body_at, total;
    while (!c->streaming && (total = request_length(c, &body_at))) {
        char *body = c->input + body_at, *path = memchr(c->input, ' ', body_at);
        int length = total - body_at;
        int is_auth = path && !strncmp(path, " /auth", 6);
        int is_stream = memmem(body, length, "\"stream\":true", 13) != NULL
                     || memmem(body, length, "\"stream\": true", 14) != NULL;
        int is_paced = memmem(body, length, "-paced\"", 7) != NULL;
        memmove(c->input, c->input + total, c->used - total);
        c->used -= total;
        if (is_auth) { send_all(c, &auth_answer); continue; }
        if (is_stream) { start_stream(c, is_paced); return; }
        static unsigned served;
        char serial[9];
        snprintf(serial, sizeof serial, "%08x", served++);
        memcpy(answer_serial, serial, 8);
        send_all(c, &json_answer);
    }
}

static void step(queue *q) {
    conn *c = pop(q);
    if (c->gone) { drop(c); return; }
    if (c->chunks_left-- > 0) {
        send_all(c, &chunk);
        c->due_us = now_us() + gap_us;
        push(q, c);
        return;
    }
    send_all(c, &last_chunks);
    c->streaming = 0;
    answer(c);
}

static void accept_all(int listener) {
    int on = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        conn *c = malloc(sizeof *c);
        memset(c, 0, offsetof(conn, input));
        c->fd = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static void receive(conn *c) {
    int n = recv(c->fd, c->input + c->used, INPUT_BYTES - c->used, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { leave(c); return; }
    c->used += n;
    answer(c);
}

static void http_chunk(message *m, const char *data) {
    m->length = snprintf(m->bytes, sizeof m->bytes, "%zx\r\n%s\r\n", strlen(data), data);
}

#define EVENT "data: {\"id\":\"chatcmpl-9xyzMock\",\"object\":\"chat.completion.chunk\"," \
    "\"created\":1760000000,\"model\":\"gpt-4o-mini\","

static void prepare(void) {
    const char *body =
        "{\"id\":\"chatcmpl-9xyzMockAnswer00000000\",\"object\":\"chat.completion\","
        "\"created\":1760000000,\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"message\":"
        "{\"role\":\"assistant\",\"content\":\"Hello! This completion says nothing of interest; it "
        "is here to measure what a gateway adds to a call.\"},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":26,"
        "\"total_tokens\":50,\"prompt_tokens_details\":{\"cached_tokens\":0},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":0}},\"system_fingerprint\":\"fp_mock\"}";
    json_answer.length = snprintf(json_answer.bytes, sizeof json_answer.bytes,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
        "X-Request-Id: req_mock\r\n\r\n%s", strlen(body), body);
    answer_serial = strstr(json_answer.bytes, "Answer") + 6;
    stream_head.length = snprintf(stream_head.bytes, sizeof stream_head.bytes,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        "Transfer-Encoding: chunked\r\n\r\n");
    auth_answer.length = snprintf(auth_answer.bytes, sizeof auth_answer.bytes,
        "HTTP/1.1 204 No Content\r\n\r\n");
    http_chunk(&chunk, EVENT
        "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"token \"},\"finish_reason\":null}]}\n\n");
    http_chunk(&last_chunks, EVENT
        "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" EVENT
        "\"choices\":[],\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":50,"
        "\"total_tokens\":74}}\n\ndata: [DONE]\n\n");
    strcpy(last_chunks.bytes + last_chunks.length, "0\r\n\r\n");
    last_chunks.length += 5;
}

static int listen_anywhere(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    if (bind(fd, (void *)&a, size) || listen(fd, 4096) || getsockname(fd, (void *)&a, &size)) {
        perror("listen");
        exit(1);
    }
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

/* epoll's own time-out counts whole milliseconds, which is too coarse to time a first chunk. */
static void arm_timer(void) {
    long long due = paced.head ? paced.head->due_us : 0;
    struct itimerspec t = {.it_value = {due / 1000000, due % 1000000 * 1000}};
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
}

int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "usage: %s BURST PACED GAP_US\n", argv[0]); return 2; }
    burst_chunks = atoi(argv[1]);
    paced_chunks = atoi(argv[2]);
    gap_us = atoll(argv[3]);
    prepare();
    int listener = listen_anywhere(), was_armed = 0;
    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = &listener};
    struct epoll_event timing = {.events = EPOLLIN | EPOLLET, .data.ptr = &timer_fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &listening);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &timing);
    struct epoll_event events[EVENTS];
    for (;;) {
        if (paced.head || was_armed) { arm_timer(); was_armed = paced.head != NULL; }
        int n = epoll_wait(epoll_fd, events, EVENTS, burst.head ? 0 : -1);
        for (int i = 0; i < n; i++) {
            void *who = events[i].data.ptr;
            if (who == &listener) accept_all(listener);
            else if (who != &timer_fd) receive(who);
        }
        /* One chunk each a turn, so that streams share the loop as they share a real upstream. */
        for (int turns = burst.length; turns > 0; turns--) step(&burst);
        long long now = now_us();
        while (paced.head && paced.head->due_us <= now) step(&paced);
    }
}
