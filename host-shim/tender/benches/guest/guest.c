/*
 * The guest of `make bench-tender`: one source, built for hvt and for spt by Solo5's own toolchain. Its command line says
 * what to do: "WORK COUNT". It says how long that took, by its own clock: "ns N".
 */
#include "solo5.h"
#include "../../bindings/lib.c"
#include "cpu.h"
#include "tcp.h"

static uint8_t buffer[65536] __attribute__((aligned(4096)));

static void say(const char *text)
{
    solo5_console_write(text, strlen(text));
}

static void say_number(const char *name, uint64_t number)
{
    char digits[24], *at = digits + sizeof digits;

    *--at = 0;
    *--at = '\n';
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    say(name);
    say(at);
}

/* One call that does nothing, moves nothing and waits for nothing. */
static void call(uint64_t count)
{
    while (count--)
        solo5_console_write((const char *)buffer, 0);
}

static bool block(uint64_t count, bool write)
{
    solo5_handle_t handle;
    struct solo5_block_info info;
    solo5_off_t offset = 0;

    if (solo5_block_acquire("storage", &handle, &info) != SOLO5_R_OK)
        return false;
    /* Bytes, however large the blocks are. */
    for (uint64_t left = count; left >= info.block_size; left -= info.block_size) {
        solo5_result_t result = write ? solo5_block_write(handle, offset, buffer, info.block_size)
                                      : solo5_block_read(handle, offset, buffer, info.block_size);
        if (result != SOLO5_R_OK)
            return false;
        offset += info.block_size;
        if (offset == info.capacity)
            offset = 0;
    }
    return true;
}

/* Asks for frames where there are none. */
static bool poll_net(uint64_t count)
{
    solo5_handle_t handle;
    struct solo5_net_info info;
    size_t len;

    if (solo5_net_acquire("service", &handle, &info) != SOLO5_R_OK)
        return false;
    while (count--)
        solo5_net_read(handle, buffer, info.mtu + SOLO5_NET_HLEN, &len);
    return true;
}

/* Goes to sleep with nothing left to sleep for. */
static void yield(uint64_t count)
{
    solo5_handle_set_t ready;

    while (count--)
        solo5_yield(1, &ready);
}

static bool work(const char *name, uint64_t count)
{
    switch (name[0]) {
    case 'c':
        call(count);
        return true;
    case 'r':
        return block(count, false);
    case 'w':
        return block(count, true);
    case 'p':
        return poll_net(count);
    case 'y':
        yield(count);
        return true;
    case 'x':
        say_number("sum ", cpu_work(count));
        return true;
    case 't':
        return tcp_serve(buffer, sizeof buffer, count);
    default:
        return false;
    }
}

int solo5_app_main(const struct solo5_start_info *si)
{
    const char *name = si->cmdline, *digit = name;
    uint64_t count = 0;

    while (*digit && *digit != ' ')
        digit++;
    while (*digit == ' ')
        digit++;
    while (*digit >= '0' && *digit <= '9')
        count = count * 10 + (*digit++ - '0');
    solo5_time_t start = solo5_clock_monotonic();
    if (!work(name, count)) {
        say("FAILED\n");
        return SOLO5_EXIT_FAILURE;
    }
    say_number("ns ", solo5_clock_monotonic() - start);
    return SOLO5_EXIT_SUCCESS;
}
