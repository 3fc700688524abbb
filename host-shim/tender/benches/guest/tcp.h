/*
 * The least of a TCP: one connection at a time, at 10.0.0.2. Port 5001 takes all it is sent, port 5002 sends `total` bytes.
 * Frames pass between a guest and its host without loss, but for the tap's queue, which the host's TCP repairs; what is
 * lost the other way is sent again from there on.
 */
#ifndef TCP_H
#define TCP_H

#include "solo5.h"

enum { SINK = 5001, SOURCE = 5002, MSS = 1460, HEADERS = 54, BURST = 16 };
enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

struct __attribute__((packed)) segment {
    uint8_t to[6], from[6];
    uint16_t ethertype;
    uint8_t version, service;
    uint16_t len, id, fragment;
    uint8_t ttl, protocol;
    uint16_t ip_checksum;
    uint8_t source[4], destination[4];
    uint16_t source_port, destination_port;
    uint32_t seq, ack;
    uint8_t data_offset, flags;
    uint16_t window, checksum, urgent;
    uint8_t rest[8];
};

static struct {
    solo5_handle_t net;
    uint8_t mac[6];
    /* The last segment's addresses and ports, turned around: the head of all that is sent. */
    struct segment out;
    bool open;
    uint32_t received, acknowledged, sent, end, peer_window;
    uint8_t peer_scale, duplicates;
} tcp;

static uint8_t outgoing[HEADERS + MSS];

static uint16_t be16(uint16_t x) { return (uint16_t)(x << 8 | x >> 8); }
static uint32_t be32(uint32_t x) { return __builtin_bswap32(x); }

static uint32_t sum_words(const void *data, size_t len, uint32_t sum)
{
    const uint8_t *byte = data;

    for (; len > 1; len -= 2, byte += 2)
        sum += (uint32_t)(byte[0] << 8 | byte[1]);
    return len ? sum + (uint32_t)(byte[0] << 8) : sum;
}

static uint16_t folded(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return be16((uint16_t)~sum);
}

static bool tcp_send(uint8_t flags, uint32_t seq, size_t options, size_t len)
{
    struct segment *s = (struct segment *)outgoing;
    size_t tcp_len = 20 + options + len;

    memcpy(s, &tcp.out, HEADERS);
    s->len = be16((uint16_t)(20 + tcp_len));
    s->ip_checksum = 0;
    s->ip_checksum = folded(sum_words(&s->version, 20, 0));
    s->seq = be32(seq);
    s->ack = be32(tcp.received);
    s->data_offset = (uint8_t)((20 + options) << 2);
    s->flags = flags;
    s->window = 0xffff;
    s->checksum = s->urgent = 0;
    uint32_t pseudo = sum_words(s->source, 8, 6 + (uint32_t)tcp_len);
    s->checksum = folded(sum_words(&s->source_port, tcp_len, pseudo));
    return solo5_net_write(tcp.net, outgoing, 34 + tcp_len) == SOLO5_R_OK;
}

static void turn_around(const struct segment *s)
{
    struct segment *o = &tcp.out;

    memcpy(o->to, s->from, 6);
    memcpy(o->from, tcp.mac, 6);
    o->ethertype = be16(0x0800);
    o->version = 0x45;
    o->ttl = 64;
    o->protocol = 6;
    memcpy(o->source, s->destination, 4);
    memcpy(o->destination, s->source, 4);
    o->source_port = s->destination_port;
    o->destination_port = s->source_port;
}

/* Answers a SYN: our MSS, and a window that can grow to 8 MiB. */
static void accept_connection(const struct segment *s, const uint8_t *end, uint32_t total)
{
    turn_around(s);
    tcp.peer_scale = 0;
    for (const uint8_t *o = s->rest; o < end && *o; o += *o == 1 || o[1] == 0 ? 1 : o[1])
        if (*o == 3)
            tcp.peer_scale = o[2];
    tcp.open = true;
    tcp.duplicates = 0;
    tcp.received = be32(s->seq) + 1;
    tcp.acknowledged = tcp.sent = 1;
    tcp.end = s->destination_port == be16(SOURCE) ? 1 + total : 1;
    tcp.peer_window = be16(s->window);
    static const uint8_t options[8] = { 2, 4, MSS >> 8, MSS & 255, 1, 3, 3, 7 };
    memcpy(outgoing + HEADERS, options, sizeof options);
    tcp_send(SYN | ACK, 0, sizeof options, 0);
}

static void acknowledge(const struct segment *s, bool empty)
{
    uint32_t ack = be32(s->ack);

    tcp.peer_window = (uint32_t)be16(s->window) << tcp.peer_scale;
    /* That of our end is one more than that of all our bytes. */
    if (ack == tcp.end + 1)
        ack = tcp.end;
    if ((int32_t)(ack - tcp.acknowledged) > 0) {
        tcp.acknowledged = ack;
        tcp.duplicates = 0;
        if ((int32_t)(tcp.sent - ack) < 0)
            tcp.sent = ack;
    } else if (empty && ack == tcp.acknowledged && tcp.sent != ack && ++tcp.duplicates == 3)
        tcp.sent = ack;
}

/* Sends what the peer has room for, a little at a time, as it answers meanwhile. Then the end. */
static void fill_window(void)
{
    for (int i = 0; i < BURST && tcp.open && tcp.sent != tcp.end; i++) {
        uint32_t len = tcp.end - tcp.sent < MSS ? tcp.end - tcp.sent : MSS;
        if (tcp.sent + len - tcp.acknowledged > tcp.peer_window || !tcp_send(ACK, tcp.sent, 0, len))
            return;
        tcp.sent += len;
        if (tcp.sent == tcp.end && tcp.end != 1)
            tcp_send(FIN | ACK, tcp.sent, 0, 0);
    }
}

/* Returns whether an acknowledgement is due. */
static bool take_segment(const struct segment *s, uint32_t total)
{
    uint32_t header = s->data_offset >> 4, len = be16(s->len) - 20u - header * 4;
    uint32_t seq = be32(s->seq);

    if (s->flags & SYN) {
        accept_connection(s, (const uint8_t *)&s->source_port + header * 4, total);
        return false;
    }
    if (!tcp.open || s->source_port != tcp.out.destination_port)
        return false;
    if (s->flags & RST) {
        tcp.open = false;
        return false;
    }
    acknowledge(s, len == 0);
    if (len && seq == tcp.received)
        tcp.received += len;
    else if (len)
        tcp_send(ACK, tcp.sent, 0, 0);
    if (s->flags & FIN && seq + len == tcp.received) {
        tcp.received++;
        tcp.open = false;
        if (tcp.end == 1)
            tcp_send(FIN | ACK, 1, 0, 0);
        else
            tcp_send(ACK, tcp.end + 1, 0, 0);
        return false;
    }
    return len != 0;
}

static void answer_arp(uint8_t *frame)
{
    uint8_t address[10];

    memcpy(address, frame + 22, 10);
    frame[21] = 2;
    memcpy(frame + 22, tcp.mac, 6);
    memcpy(frame + 28, frame + 38, 4);
    memcpy(frame + 32, address, 10);
    memcpy(frame, frame + 6, 6);
    memcpy(frame + 6, tcp.mac, 6);
    solo5_net_write(tcp.net, frame, 42);
}

static bool tcp_serve(uint8_t *frame, size_t size, uint64_t total)
{
    struct solo5_net_info info;
    unsigned due = 0;
    size_t len;

    if (solo5_net_acquire("service", &tcp.net, &info) != SOLO5_R_OK)
        return false;
    memcpy(tcp.mac, info.mac_address, 6);
    for (;;) {
        const struct segment *s = (const struct segment *)frame;
        if (solo5_net_read(tcp.net, frame, size, &len) != SOLO5_R_OK) {
            if (due)
                tcp_send(ACK, tcp.sent, 0, 0);
            due = 0;
            solo5_handle_set_t ready;
            solo5_yield(solo5_clock_monotonic() + 1000000000ULL, &ready);
            if (!ready)
                tcp.sent = tcp.acknowledged;
        } else if (len >= 42 && s->ethertype == be16(0x0806) && frame[21] == 1)
            answer_arp(frame);
        else if (len >= HEADERS && s->ethertype == be16(0x0800) && s->protocol == 6 && take_segment(s, (uint32_t)total)
                 && ++due == 2) {
            tcp_send(ACK, tcp.sent, 0, 0);
            due = 0;
        }
        fill_window();
    }
}

#endif
