/* What the guest's own programs have instead of a libc: system calls, and a few words.
 *
 * Theory of operation:
 *   Freestanding: built by tcc without a libc, whose headers and archives would be another 20 MB to
 *   fetch. What is needed of the kernel are a dozen system calls. A program defines `start`, which
 *   gets the stack of a new process: argc, then the arguments (System V ABI for x86-64, 3.4.1).
 */

typedef unsigned long word;

enum { READ, WRITE, OPEN, CLOSE, MMAP = 9, PREAD = 17, PWRITE = 18, PIPE = 22, NANOSLEEP = 35,
       GETPID = 39, FORK = 57, EXIT = 60, WAIT4 = 61, FSYNC = 74, SETSID = 112, FADVISE = 221,
       GETTIME = 228, GETRANDOM = 318 };

#define MIB 1048576UL
#define PAGE 4096UL

long call(long number, ...);
void fill_random(void *start, word bytes, word seed);

__asm__(".globl _start\n"
        "_start: mov %rsp, %rdi\n"
        "  and $-16, %rsp\n"
        "  call start\n"
        ".globl call\n" /* the kernel's calling convention: syscall(2) */
        "call: mov %rdi, %rax\n"
        "  mov %rsi, %rdi\n"
        "  mov %rdx, %rsi\n"
        "  mov %rcx, %rdx\n"
        "  mov %r8, %r10\n"
        "  mov %r9, %r8\n"
        "  mov 8(%rsp), %r9\n"
        "  syscall\n"
        "  ret\n"
        ".globl fill_random\n"
        "fill_random:\n"
        "1: mov %rdx, %rax\n"
        "  shl $13, %rax\n"
        "  xor %rax, %rdx\n"
        "  mov %rdx, %rax\n"
        "  shr $7, %rax\n"
        "  xor %rax, %rdx\n"
        "  mov %rdx, %rax\n"
        "  shl $17, %rax\n"
        "  xor %rax, %rdx\n"
        "  mov %rdx, (%rdi)\n"
        "  add $8, %rdi\n"
        "  sub $8, %rsi\n"
        "  jnz 1b\n"
        "  ret\n");

static void leave(long code)
{
    for (;;)
        call(EXIT, code);
}

static void complain(const char *text)
{
    long length = 0;
    while (text[length])
        length++;
    call(WRITE, 2L, text, length);
    leave(1);
}

static int equal(const char *left, const char *right)
{
    while (*left && *left == *right)
        left++, right++;
    return *left == *right;
}

static word number(const char *text)
{
    word value = 0;
    if (!*text)
        complain("a number is missing\n");
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > 1UL << 32)
            complain("expected a whole number\n");
        value = value * 10 + (*text - '0');
    }
    return value;
}

static void print_number(word value)
{
    char text[24];
    int at = sizeof text;
    text[--at] = '\n';
    do
        text[--at] = '0' + value % 10;
    while (value /= 10);
    call(WRITE, 1L, text + at, sizeof text - at);
}

static void pause_for_microseconds(long microseconds)
{
    long time[2];
    time[0] = microseconds / 1000000;
    time[1] = microseconds % 1000000 * 1000;
    call(NANOSLEEP, time, 0L);
}

static void pause_for(long milliseconds)
{
    pause_for_microseconds(milliseconds * 1000);
}

static word seed(void)
{
    word value = 0;
    call(GETRANDOM, &value, sizeof value, 4L); /* GRND_INSECURE: early in a boot others give none */
    return value ^ 0x9E3779B97F4A7C15UL * call(GETPID) | 1;
}
