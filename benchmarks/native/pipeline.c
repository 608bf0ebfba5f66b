/* redis-benchmark -c 1 -P 100 for one command, where redis-benchmark is not installed:
   pipeline SOCKET COUNT ARGUMENT…; prints commands a second. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 100

int main(int count, char **arguments) {
  if (count < 4) return 2;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, arguments[1], sizeof address.sun_path - 1);
  int server = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(server, (struct sockaddr *)&address, sizeof address)) return 1;
  size_t length = 64;
  for (int i = 3; i < count; i++) length += strlen(arguments[i]) + 32;
  char *one = malloc(length), *all = malloc(length * DEPTH), answer[65536];
  size_t size = sprintf(one, "*%d\r\n", count - 3);
  for (int i = 3; i < count; i++) size += sprintf(one + size, "$%zu\r\n%s\r\n", strlen(arguments[i]), arguments[i]);
  for (int i = 0; i < DEPTH; i++) memcpy(all + i * size, one, size);
  long total = atol(arguments[2]);
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (long done = 0; done < total; done += DEPTH) {
    for (size_t sent = 0; sent < size * DEPTH;) {
      ssize_t now = write(server, all + sent, size * DEPTH - sent);
      if (now <= 0) return 1;
      sent += now;
    }
    /* An integer is one line, a bulk string (the id of XADD) two. */
    for (int lines = arguments[3][0] == 'X' ? 2 * DEPTH : DEPTH; lines;) {
      ssize_t got = read(server, answer, sizeof answer);
      if (got <= 0 || answer[0] == '-') return 1;
      for (ssize_t i = 0; i < got; i++) lines -= answer[i] == '\n';
    }
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%.0f\n", total / (end.tv_sec - begin.tv_sec + (end.tv_nsec - begin.tv_nsec) / 1e9));
  return 0;
}
