/* A runner that costs as little as one can: it speaks the runner protocol and writes the lines of a file.

   flood FILE; on stdin, by the prompt of each query:
     "flood N"            N lines of FILE, over and over, as fast as they are read
     "pace RATE SECONDS"  RATE lines a second, each with the time it was written at (monotonic clock, ns)
     "stream RATE SECONDS"  the same, each line a piece of one text
   and then the line that ends a turn. The first query is answered with an init line before. In FILE every ######## is
   replaced by the number of the round through it, so that no id comes twice. FILE is read when lines of it are first asked
   for: a start is no more than a process. Ends at the end of stdin or on a stop. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char *text;
static size_t size, *ends, lines, *marks, marked;
static unsigned cycle;

static void put(const char *data, size_t length) {
  while (length) {
    ssize_t written = write(1, data, length);
    if (written <= 0) exit(1);
    data += written;
    length -= written;
  }
}

static void load(const char *path) {
  int file = open(path, O_RDONLY);
  struct stat info;
  if (file < 0 || fstat(file, &info)) exit(2);
  size = info.st_size;
  text = malloc(size + 1);
  for (size_t have = 0; have < size;) {
    ssize_t got = read(file, text + have, size - have);
    if (got <= 0) exit(2);
    have += got;
  }
  close(file);
  ends = malloc(sizeof *ends * (size / 2 + 1));
  marks = malloc(sizeof *marks * (size / 8 + 1));
  for (size_t at = 0; at < size; at++) {
    if (text[at] == '\n') ends[lines++] = at + 1;
    if (text[at] == '#' && at + 8 <= size && !memcmp(text + at, "########", 8)) marks[marked++] = at, at += 7;
  }
}

static void flood(long count) {
  while (count > 0) {
    char number[9];
    snprintf(number, sizeof number, "%08u", cycle++);
    for (size_t mark = 0; mark < marked; mark++) memcpy(text + marks[mark], number, 8);
    size_t now = (size_t)count < lines ? (size_t)count : lines, end = ends[now - 1];
    for (size_t at = 0; at < end; at += 65536) put(text + at, end - at < 65536 ? end - at : 65536);
    count -= now;
  }
}

static int64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static const char *whole =
  "{\"type\":\"assistant\",\"message\":{\"id\":\"msg_%lld\",\"type\":\"message\",\"role\":\"assistant\",\"model\":"
  "\"claude-opus-5-5\",\"content\":[{\"type\":\"text\",\"text\":\"%lld Some words, as an agent says them in passing.\""
  "}],\"stop_reason\":null},\"parent_tool_use_id\":null,\"session_id\":\"1a1fc116\",\"uuid\":\"a6ca0821\"}\n";
static const char *piece =
  "{\"type\":\"stream_event\",\"event\":{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
  "\"text\":\"%2$lld some words\"}},\"session_id\":\"1a1fc116\",\"parent_tool_use_id\":null,\"uuid\":\"a6ca0821\","
  "\"api_message_id\":\"msg_%1$lld\"}\n";

/* ``of``: what each line is; its message is named by the line's time, or of a piece by ``message``. */
static void pace(double rate, double seconds, const char *of, int64_t message) {
  char line[1024];
  int64_t step = 1e9 / rate, next = clock_ns() + 500000000LL + (getpid() * 7919LL * 1000003LL) % step;  /* out of step; prompts settle first */
  for (long left = rate * seconds; left > 0; left--, next += step) {
    struct timespec until = {next / 1000000000LL, next % 1000000000LL};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    int64_t now = clock_ns();
    int length = snprintf(line, sizeof line, of, (long long)(message ? message : now), (long long)now);
    put(line, length);
  }
}

int main(int count, char **arguments) {
  static char line[65536];
  static const char init[] =
    "{\"type\":\"system\",\"subtype\":\"init\",\"cwd\":\"/\",\"session_id\":\"1a1fc116\",\"tools\":[],\"model\":\"claude-opus-5-5\","
    "\"permissionMode\":\"default\",\"uuid\":\"9969305d\"}\n";
  int begun = 0;
  long number;
  double rate, seconds;
  if (count < 2) return 2;
  while (fgets(line, sizeof line, stdin)) {
    if (strstr(line, "\"type\":\"stop\"")) break;
    char *prompt = strstr(line, "\"prompt\":\"");
    if (!prompt) continue;
    if (!begun++) put(init, sizeof init - 1);
    if (sscanf(prompt + 10, "flood %ld", &number) == 1) {
      if (number > 0 && !text) load(arguments[1]);
      flood(number);
    }
    else if (sscanf(prompt + 10, "pace %lf %lf", &rate, &seconds) == 2) pace(rate, seconds, whole, 0);
    else if (sscanf(prompt + 10, "stream %lf %lf", &rate, &seconds) == 2) pace(rate, seconds, piece, clock_ns());
    char end[400];
    put(end, snprintf(end, sizeof end,
      "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"duration_ms\":1,\"num_turns\":1,\"result\":\"ok\","
      "\"session_id\":\"1a1fc116\",\"total_cost_usd\":0.001,\"usage\":{\"input_tokens\":1,\"output_tokens\":1},"
      "\"uuid\":\"%lld\"}\n", (long long)clock_ns()));
  }
  return 0;
}
