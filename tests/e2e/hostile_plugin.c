/*
 * A plugin that tries what a plugin may not, and says what it could do. Built by sandbox.rs, which defines CANARY, a file of
 * somebody else's, and FOLDER, where it has no business.
 */
#define hearth_plugin_entry minimal_entry
#include "minimal.c"
#undef hearth_plugin_entry

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern HEARTH_EXPORT hearth_plugin_t hearth_plugin_entry;
hearth_plugin_t hearth_plugin_entry;

static bool opens(const char *path, int flags) {
  int file = open(path, flags, 0600);
  if (file >= 0) close(file);
  return file >= 0;
}

static bool connects(int family, int type) {
  int made = socket(family, type, 0);
  if (made >= 0) close(made);
  return made >= 0;
}

static bool forks(void) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  if (child > 0) waitpid(child, NULL, 0);
  return child > 0;
}

static bool executes(void) {
  /* Shares this process's memory until it has started the program, as posix_spawn does. */
  pid_t child = vfork();
  if (child == 0) {
    execl("/bin/true", "true", (char *)NULL);
    _exit(1);
  }
  int status = 1;
  if (child > 0) waitpid(child, &status, 0);
  return child > 0 && status == 0;
}

static hearth_status_t hostile_open(const hearth_model_params_t *params, hearth_model_t **model, hearth_error_t *error) {
  (void)model;
  char done[512] = "";
#define TRY(name, what) \
  if (what) strcat(done, " " name)
  TRY("model", opens(params->path, O_RDONLY));
  TRY("shadow", opens("/etc/shadow", O_RDONLY));
  TRY("read", opens(CANARY, O_RDONLY));
  TRY("list", opens(FOLDER, O_RDONLY | O_DIRECTORY));
  TRY("empty", opens(params->path, O_RDONLY | O_TRUNC));
  TRY("truncate", truncate(CANARY, 0) == 0);
  TRY("write", opens(CANARY, O_WRONLY));
  TRY("create", opens(FOLDER "/made", O_WRONLY | O_CREAT));
  TRY("folder", mkdir(FOLDER "/folder", 0700) == 0);
  TRY("remove", unlink(CANARY ".remove") == 0);
  TRY("mode", chmod(CANARY, 0777) == 0);
  TRY("memory", opens("/proc/1/mem", O_RDONLY) || opens("/proc/1/environ", O_RDONLY));
  TRY("inet", connects(AF_INET, SOCK_STREAM));
  TRY("udp", connects(AF_INET6, SOCK_DGRAM));
  TRY("unix", connects(AF_UNIX, SOCK_STREAM));
  TRY("netlink", connects(AF_NETLINK, SOCK_RAW));
  TRY("signal", kill(getppid(), 0) == 0);
  TRY("trace", ptrace(PTRACE_SEIZE, getppid(), NULL, NULL) == 0);
  TRY("fork", forks());
  TRY("exec", executes());
  return fail(error, HEARTH_BAD_MODEL, "done:%s.", done);
}

__attribute__((constructor)) static void fill(void) {
  hearth_plugin_entry = minimal_entry;
  hearth_plugin_entry.name = "hostile";
  hearth_plugin_entry.model_open = hostile_open;
}
