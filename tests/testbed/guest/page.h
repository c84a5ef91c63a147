/*
 * Self-checking pages.
 *
 * A page says which page it is and which version of it, and carries a checksum over all of its other words, seeded
 * with both. A page that was lost, swapped with another, torn between two versions or left behind at an older
 * version can be told from the one that should be there.
 */
#ifndef PAGE_H
#define PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PAGE_BYTES 4096
#define BODY_WORDS (PAGE_BYTES / 8 - 3)

struct page {
	uint64_t index;
	uint64_t version;
	uint64_t sum;
	uint64_t body[BODY_WORDS];
};

_Static_assert(sizeof(struct page) == PAGE_BYTES, "a page is a page");

enum content {
	CONTENT_TEXT,   /* compresses to about 0.30 with zstd, as the memory of common servers does */
	CONTENT_RANDOM, /* does not compress */
};

/* Text content is runs of noise followed by text; 19 of 64 words make zstd level 1 arrive at 0.30. */
#define RUN_WORDS 64
#define NOISE_WORDS 19
#define TEXT_WORDS (RUN_WORDS - NOISE_WORDS)

static const char page_text[TEXT_WORDS * 8 + 1] =
	"A host that gives a guest away keeps its copy until the other one has said that it took over; a host that "
	"takes one in runs nothing before it was told to. Between the two lies a single line in a journal, and "
	"whoever reads it after the lights went out knows whose guest it is. Nothing else may decide: no clock, no "
	"count of lost packets, no hope that anyone ";

/* The finaliser of splitmix64: spreads every bit of its argument over the whole word. */
static inline uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static inline uint64_t page_seed(uint64_t index, uint64_t version)
{
	return mix((index << 32 ^ version) + UINT64_C(0x9e3779b97f4a7c15));
}

/* Cheap on purpose (xorshift64): the guest is often emulated instruction by instruction. */
static inline uint64_t noise(uint64_t *words, unsigned count, uint64_t x)
{
	for (unsigned i = 0; i < count; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		words[i] = x;
	}
	return x;
}

/* Rotate, xor, multiply: one word a step, and every step depends on all before it, so order counts. */
static inline uint64_t page_sum(const struct page *page)
{
	uint64_t sum = page_seed(page->index, page->version);

	for (unsigned i = 0; i < BODY_WORDS; i++)
		sum = ((sum << 5 | sum >> 59) ^ page->body[i]) * UINT64_C(0x517cc1b727220a95);
	return mix(sum);
}

/* Write a page anew; all noise differs from one version to the next. */
static inline void page_write(struct page *page, uint64_t index, uint64_t version, enum content content)
{
	unsigned noise_words = content == CONTENT_TEXT ? NOISE_WORDS : RUN_WORDS;
	uint64_t x = page_seed(index, version) | 1;

	for (unsigned at = 0; at < BODY_WORDS; at += RUN_WORDS) {
		unsigned left = BODY_WORDS - at;
		unsigned run = left < RUN_WORDS ? left : RUN_WORDS;
		unsigned noisy = noise_words < run ? noise_words : run;

		x = noise(page->body + at, noisy, x);
		memcpy(page->body + at + noisy, page_text, (run - noisy) * 8);
	}
	page->index = index;
	page->version = version;
	page->sum = page_sum(page);
}

static inline bool page_is_good(const struct page *page, uint64_t index, uint64_t version)
{
	return page->index == index && page->version == version && page->sum == page_sum(page);
}

#endif
