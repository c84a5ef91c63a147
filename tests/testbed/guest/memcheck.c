/*
 * memcheck: memory that knows when it was damaged.
 *
 * Fills memory with self-checking pages (page.h), rewrites a working set at a given rate, verifies all pages over and
 * over, and counts. The counters live in the same memory: after a relocation they go on, with bad=0, or memory did
 * not arrive as it left.
 *
 * They are printed as one line each interval, and sent to whoever asks on the UDP port:
 *
 *     stat     the line at once
 *     sweep    verify one whole sweep as fast as possible; the line at once (ask again until verified has grown
 *              by the number of pages)
 *     corrupt  flip one bit of one page, so that a test can see that it is found
 *
 *     MEMCHECK t=12.3 filled=1000 want=1000 sweeps=3 verified=123456 dirtied=4567 bad=0 seq=42 boot=6f1c...
 *
 * t is seconds since the start of this program, filled and want are MiB, verified, dirtied and bad count pages, seq
 * counts lines, boot is drawn anew by every start of this program.
 */
#define _GNU_SOURCE
#include "page.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAGES_PER_MIB ((1 << 20) / PAGE_BYTES)
#define HUGE_PAGE_BYTES (2 << 20)
#define SLICE_PAGES 64   /* work between two looks at the socket: about a millisecond under emulation */
#define TICK_MS 5        /* how long to sleep when nothing is due */
#define CATCH_UP_US 50000 /* after a stall (a relocation is one) at most this much of what was missed is made up */
#define LINE_BYTES 256
#define RESERVE_MIB 8 /* left to the rest of the guest */
#define NICENESS 10   /* whatever else the guest does goes first */

struct options {
	uint64_t fill_mib;
	uint64_t working_set_mib;
	double dirty_mb_s;
	double verify_mb_s;
	double interval_s;
	uint16_t port;
	enum content content;
};

struct pace {
	double pages_per_us;
	double due;
	uint64_t last_us;
};

struct state {
	const struct options *options;
	struct page *pages;
	uint32_t *versions; /* what each page should be: kept apart from the pages, so an old page cannot vouch for itself */
	uint64_t count;
	uint64_t working_set;
	uint64_t filled;
	uint64_t next_dirty;
	uint64_t next_verify;
	uint64_t rush; /* pages still to be verified without pacing */
	uint64_t dirtied;
	uint64_t verified;
	uint64_t sweeps;
	uint64_t bad;
	uint64_t seq;
	uint64_t boot;
	uint64_t start_us;
	struct pace dirty_pace;
	struct pace verify_pace;
};

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void die(const char *what)
{
	fprintf(stderr, "memcheck: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Megabytes per second (10^6, as links are counted) to pages. */
static struct pace pace_of(double mb_s, uint64_t now)
{
	return (struct pace){.pages_per_us = mb_s / PAGE_BYTES, .last_us = now};
}

/* How many pages, of at most a slice, are due now; they count as done. */
static uint64_t pace_take(struct pace *pace, uint64_t now)
{
	uint64_t passed = now - pace->last_us;
	uint64_t take;

	pace->last_us = now;
	pace->due += pace->pages_per_us * (double)passed;
	if (pace->due > pace->pages_per_us * CATCH_UP_US + 1)
		pace->due = pace->pages_per_us * CATCH_UP_US + 1;
	take = pace->due < SLICE_PAGES ? (uint64_t)pace->due : SLICE_PAGES;
	pace->due -= (double)take;
	return take;
}

static void fill_slice(struct state *s)
{
	for (unsigned i = 0; i < SLICE_PAGES && s->filled < s->count; i++, s->filled++)
		page_write(&s->pages[s->filled], s->filled, 0, s->options->content);
}

/* The working set is rewritten in order: for a given rate, that is the most pages that can be dirty at once. */
static void dirty(struct state *s, uint64_t pages)
{
	while (pages--) {
		uint64_t at = s->next_dirty;

		page_write(&s->pages[at], at, ++s->versions[at], s->options->content);
		s->next_dirty = (at + 1) % s->working_set;
		s->dirtied++;
	}
}

static void verify(struct state *s, uint64_t pages)
{
	while (pages--) {
		uint64_t at = s->next_verify;

		if (!page_is_good(&s->pages[at], at, s->versions[at]))
			s->bad++;
		s->verified++;
		s->next_verify = (at + 1) % s->count;
		if (s->next_verify == 0)
			s->sweeps++;
	}
}

/* One slice of each kind of work; true if more is due already. */
static bool work(struct state *s)
{
	uint64_t now = now_us();
	uint64_t dirty_now, verify_now, rush;

	if (s->filled < s->count) {
		fill_slice(s);
		return true;
	}
	if (s->count == 0)
		return false;
	rush = s->rush < SLICE_PAGES ? s->rush : SLICE_PAGES;
	s->rush -= rush;
	dirty_now = pace_take(&s->dirty_pace, now);
	verify_now = pace_take(&s->verify_pace, now);
	dirty(s, dirty_now);
	verify(s, verify_now + rush);
	return s->rush > 0 || s->dirty_pace.due >= 1 || s->verify_pace.due >= 1;
}

static int line(struct state *s, char *out, size_t size)
{
	uint64_t ms = (now_us() - s->start_us) / 1000;

	return snprintf(out, size,
			"MEMCHECK t=%llu.%03llu filled=%llu want=%llu sweeps=%llu verified=%llu dirtied=%llu bad=%llu "
			"seq=%llu boot=%016llx\n",
			(unsigned long long)ms / 1000, (unsigned long long)ms % 1000,
			(unsigned long long)s->filled / PAGES_PER_MIB, (unsigned long long)s->options->fill_mib,
			(unsigned long long)s->sweeps, (unsigned long long)s->verified, (unsigned long long)s->dirtied,
			(unsigned long long)s->bad, (unsigned long long)s->seq++, (unsigned long long)s->boot);
}

/* A console that nobody reads must not stop the counters: what does not fit at once is dropped. */
static void print(struct state *s)
{
	char text[LINE_BYTES];
	int size = line(s, text, sizeof text);

	if (write(STDOUT_FILENO, text, (size_t)size) < 0 && errno != EAGAIN)
		die("console");
}

static void corrupt(struct state *s)
{
	uint64_t at;

	if (s->filled == 0)
		return;
	at = s->next_verify < s->filled ? s->next_verify : 0;
	s->pages[at].body[BODY_WORDS / 2] ^= 1;
}

static void answer(struct state *s, int sock)
{
	char request[32], text[LINE_BYTES];
	struct sockaddr_in peer;
	socklen_t peer_size = sizeof peer;
	ssize_t size;

	while ((size = recvfrom(sock, request, sizeof request - 1, MSG_DONTWAIT, (struct sockaddr *)&peer,
				&peer_size)) >= 0) {
		request[size] = '\0';
		request[strcspn(request, "\r\n")] = '\0';
		if (strcmp(request, "sweep") == 0)
			s->rush = s->count;
		else if (strcmp(request, "corrupt") == 0)
			corrupt(s);
		else if (strcmp(request, "stat") != 0)
			continue;
		size = line(s, text, sizeof text);
		sendto(sock, text, (size_t)size, MSG_DONTWAIT, (struct sockaddr *)&peer, peer_size);
	}
}

static void run(struct state *s, int sock)
{
	struct pollfd wait = {.fd = sock, .events = POLLIN};
	uint64_t interval_us = (uint64_t)(s->options->interval_s * 1e6);
	uint64_t next_line_us = s->start_us;

	for (;;) {
		bool busy = work(s);

		if (poll(&wait, 1, busy ? 0 : TICK_MS) > 0)
			answer(s, sock);
		if (interval_us && now_us() >= next_line_us) {
			print(s);
			next_line_us = now_us() + interval_us;
		}
	}
}

static int listen_udp(uint16_t port)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (sock < 0 || bind(sock, (struct sockaddr *)&here, sizeof here) < 0)
		die("UDP port");
	return sock;
}

/* Aligned to huge pages: first touch of memory is what filling would spend most of its time on. */
static void *huge_memory(size_t bytes)
{
	size_t whole = bytes + HUGE_PAGE_BYTES;
	char *memory = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t offset;

	if (memory == MAP_FAILED)
		die("memory");
	offset = -(uintptr_t)memory & (HUGE_PAGE_BYTES - 1);
	madvise(memory + offset, bytes, MADV_HUGEPAGE);
	return memory + offset;
}

/* The kernel would kill something at random, minutes later; say it now. */
static void check_fits(uint64_t fill_mib)
{
	char text[4096];
	unsigned long long available_kib = 0;
	int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	const char *at;

	if (size < 0)
		return;
	close(fd);
	text[size] = '\0';
	at = strstr(text, "MemAvailable:");
	if (at == NULL || sscanf(at, "MemAvailable: %llu", &available_kib) != 1)
		return;
	if (fill_mib + RESERVE_MIB > available_kib / 1024) {
		fprintf(stderr, "memcheck: %llu MiB do not fit, %llu MiB are available\n",
			(unsigned long long)fill_mib, available_kib / 1024);
		exit(1);
	}
}

/* Random as far as the kernel is ready, and never the same twice in any case. */
static uint64_t draw_boot_id(void)
{
	struct timespec t;
	uint64_t id = 0;

	getrandom(&id, sizeof id, GRND_INSECURE);
	clock_gettime(CLOCK_REALTIME, &t);
	return mix(id ^ (uint64_t)t.tv_sec * 1000000000 ^ (uint64_t)t.tv_nsec);
}

static double number(const char *text, const char *name)
{
	char *end;
	double value = strtod(text, &end);

	if (*text == '\0' || *end != '\0' || !(value >= 0 && value < 1e9)) {
		fprintf(stderr, "memcheck: --%s: not a number: %s\n", name, text);
		exit(2);
	}
	return value;
}

static enum content content_named(const char *name)
{
	if (strcmp(name, "text") == 0)
		return CONTENT_TEXT;
	if (strcmp(name, "random") == 0)
		return CONTENT_RANDOM;
	fprintf(stderr, "memcheck: --content: text or random, not %s\n", name);
	exit(2);
}

static struct options parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"fill", required_argument, NULL, 'f'},	    {"ws", required_argument, NULL, 'w'},
		{"rate", required_argument, NULL, 'r'},	    {"verify", required_argument, NULL, 'v'},
		{"interval", required_argument, NULL, 'i'}, {"port", required_argument, NULL, 'p'},
		{"content", required_argument, NULL, 'c'},  {0},
	};
	struct options o = {.fill_mib = 32, .working_set_mib = 32, .verify_mb_s = 20, .interval_s = 0.5, .port = 7007};
	int which, at = 0;

	while ((which = getopt_long(argc, argv, "", known, &at)) != -1) {
		switch (which) {
		case 'f': o.fill_mib = (uint64_t)number(optarg, known[at].name); break;
		case 'w': o.working_set_mib = (uint64_t)number(optarg, known[at].name); break;
		case 'r': o.dirty_mb_s = number(optarg, known[at].name); break;
		case 'v': o.verify_mb_s = number(optarg, known[at].name); break;
		case 'i': o.interval_s = number(optarg, known[at].name); break;
		case 'p': o.port = (uint16_t)number(optarg, known[at].name); break;
		case 'c': o.content = content_named(optarg); break;
		default: exit(2);
		}
	}
	return o;
}

int main(int argc, char **argv)
{
	struct options options = parse(argc, argv);
	struct state s = {.options = &options, .boot = draw_boot_id(), .start_us = now_us()};

	check_fits(options.fill_mib);
	s.count = options.fill_mib * PAGES_PER_MIB;
	s.working_set = options.working_set_mib * PAGES_PER_MIB;
	if (s.working_set > s.count)
		s.working_set = s.count;
	s.pages = huge_memory(s.count * PAGE_BYTES);
	s.versions = huge_memory(s.count * sizeof *s.versions);
	s.dirty_pace = pace_of(s.working_set ? options.dirty_mb_s : 0, s.start_us);
	s.verify_pace = pace_of(options.verify_mb_s, s.start_us);
	setpriority(PRIO_PROCESS, 0, NICENESS);
	fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK);
	run(&s, listen_udp(options.port));
}
