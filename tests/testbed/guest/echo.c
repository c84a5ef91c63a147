/*
 * echo: what comes in goes back, over UDP and TCP (port 7, RFC 862).
 *
 * One thread, one poll loop. A datagram is answered in the same turn in which it is seen: its travel time is what
 * the blackout of a relocation is measured with.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SESSIONS 16
#define BUFFER_BYTES 16384
#define NICENESS -10 /* an answer never waits for other work of the guest */

enum { UDP, TCP, FIRST_SESSION };

/* One TCP connection: bytes that were read and are still to be sent back. */
struct session {
	size_t start;
	size_t end;
	char buffer[BUFFER_BYTES];
};

static struct pollfd fds[FIRST_SESSION + SESSIONS];
static struct session sessions[SESSIONS];

static void die(const char *what)
{
	fprintf(stderr, "echo: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int listen_on(int type, uint16_t port)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
	int on = 1;
	int sock = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (sock < 0)
		die("socket");
	setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(sock, (struct sockaddr *)&here, sizeof here) < 0)
		die("bind");
	if (type == SOCK_STREAM && listen(sock, SESSIONS) < 0)
		die("listen");
	return sock;
}

static void echo_datagrams(int sock)
{
	static char data[65536];
	struct sockaddr_in peer;
	socklen_t peer_size = sizeof peer;
	ssize_t size;

	while ((size = recvfrom(sock, data, sizeof data, 0, (struct sockaddr *)&peer, &peer_size)) >= 0)
		sendto(sock, data, (size_t)size, 0, (struct sockaddr *)&peer, peer_size);
}

static void accept_session(int listener)
{
	int on = 1;
	int sock = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (sock < 0)
		return;
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	for (unsigned i = 0; i < SESSIONS; i++) {
		if (fds[FIRST_SESSION + i].fd < 0) {
			fds[FIRST_SESSION + i] = (struct pollfd){.fd = sock, .events = POLLIN};
			sessions[i].start = sessions[i].end = 0;
			return;
		}
	}
	close(sock);
}

/* Send what is pending; read on only when all of it is gone. False at the end of the connection. */
static int echo_stream(struct pollfd *fd, struct session *s)
{
	ssize_t size;

	if (s->start == s->end) {
		size = read(fd->fd, s->buffer, sizeof s->buffer);
		if (size <= 0)
			return size < 0 && errno == EAGAIN;
		s->start = 0;
		s->end = (size_t)size;
	}
	size = send(fd->fd, s->buffer + s->start, s->end - s->start, MSG_NOSIGNAL);
	if (size < 0 && errno != EAGAIN)
		return 0;
	s->start += size > 0 ? (size_t)size : 0;
	fd->events = s->start == s->end ? POLLIN : POLLOUT;
	return 1;
}

static void serve_session(unsigned i)
{
	struct pollfd *fd = &fds[FIRST_SESSION + i];

	if (fd->fd >= 0 && fd->revents && !echo_stream(fd, &sessions[i])) {
		close(fd->fd);
		fd->fd = -1;
	}
}

int main(int argc, char **argv)
{
	uint16_t port = argc > 1 ? (uint16_t)atoi(argv[1]) : 7;

	setpriority(PRIO_PROCESS, 0, NICENESS); /* not allowed outside of the guest: no harm */
	fds[UDP] = (struct pollfd){.fd = listen_on(SOCK_DGRAM, port), .events = POLLIN};
	fds[TCP] = (struct pollfd){.fd = listen_on(SOCK_STREAM, port), .events = POLLIN};
	for (unsigned i = 0; i < SESSIONS; i++)
		fds[FIRST_SESSION + i].fd = -1;
	while (poll(fds, FIRST_SESSION + SESSIONS, -1) >= 0 || errno == EINTR) {
		if (fds[UDP].revents)
			echo_datagrams(fds[UDP].fd);
		for (unsigned i = 0; i < SESSIONS; i++)
			serve_session(i);
		if (fds[TCP].revents)
			accept_session(fds[TCP].fd);
	}
	die("poll");
}
