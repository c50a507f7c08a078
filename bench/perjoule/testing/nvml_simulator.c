/* A simulated NVML: boards whose power is a function of time with a known integral.

   Loaded in place of libnvidia-ml.so.1 by any NVML binding. All state (configuration, step logs, call counts) lies in
   one file that every process maps, so that a test, the program under test and its children see the same boards. What a
   board shows (counter, power readings) is a function of that state and of time; nothing runs in between.

   Times are seconds: of CLOCK_MONOTONIC, or virtual and moved by the test. The layout of the file is mirrored in
   nvml_simulator.py; every field is 8 bytes wide, so that there is no padding to disagree about. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_BOARDS 16
#define MAX_STEPS 65536
#define MAX_PIDS 16
#define MAX_SLICES 7
#define FUNCTIONS 128
#define LOG_LENGTH 65536
#define PANELS 512 /* of the mean over a counter's box */
#define SAMPLES 120 /* the driver's buffer; its length is not documented */
#define MAGIC 0x4e564d4c53494d33ULL

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, VERSION_MISMATCH = 25, UNKNOWN = 999 };
enum { CONSTANT = 0, SQUARE = 1, BURSTS = 2, STEPS = 3 };
/* What can be unsupported, as bits. ON_SLICES marks what a slice of a board in MIG mode answers as well. */
enum { F_ENERGY = 1, F_ENERGY_FIELD = 2, F_INSTANT = 4, F_AVERAGE = 8, F_USAGE = 16, F_SAMPLES = 32, F_LIMIT = 64,
       F_UTILISATION = 128, F_PROCESSES = 256, F_CLOCKS = 512, F_MIG = 1024, F_TEMPERATURE = 2048, F_MEMORY = 4096,
       ON_SLICES = 1 << 30 };
enum { FOR_RADIUS = 1, FOR_ANGLE = 2, FOR_BURST = 3, FOR_JITTER = 4, FOR_ERROR = 5 }; /* uses of random numbers */

#define NUMBERS(X) \
    X(wave) X(low_w) X(high_w) X(period_s) X(duty) X(burst_s) X(slot_s) X(wave_phase_s) X(wave_seed) \
    X(rise_s) X(fall_s) X(settle_w) X(settle_s) \
    X(noise_w) X(noise_slot_s) X(seed) X(gain) \
    X(counter_period_s) X(counter_phase_s) X(counter_jitter) X(counter_duty) X(counter_lag_s) X(counter_box_s) \
    X(counter_start_j) \
    X(power_period_s) X(power_phase_s) X(instant_window_s) X(average_window_s) X(usage_is_instant) X(sample_s) \
    X(limit_w) X(limit_after_w) X(limit_change_s) \
    X(unsupported) X(unsupported_from_s) X(lost_at_s) X(reset_at_s) X(stuck_at_s) X(unknown_rate) X(too_fast_s) \
    X(throttle) X(throttle_from_s) X(throttle_until_s) X(sm_clock_mhz) X(sm_clock_after_mhz) X(sm_clock_change_s) \
    X(memory_total_bytes) X(memory_bytes) X(memory_after_bytes) X(memory_change_s) \
    X(temperature_c) X(warming_c_per_s) X(architecture) X(mig) X(mig_devices) X(module_only) \
    X(pid_count) X(pids_from_s) X(pids_until_s)
#define AS_FIELD(name) double name;
#define AS_NAME(name) #name,

/* From `t_s` on, power goes from `from_w` to `power_w` within `ramp_s`, and is `settle_w` higher at first. */
typedef struct { double t_s, power_w, before_j, from_w, ramp_s, settle_w; } step_t;

typedef struct {
    char uuid[96], model[96];
    NUMBERS(AS_FIELD)
    double pids[MAX_PIDS];
    double last_poll_s;
    uint64_t draws, generation; /* calls that might have failed; changes that make prefix sums wrong */
    uint64_t step_count;
    step_t steps[MAX_STEPS];
} board_t;

typedef struct { double t_s, function, board; } call_t;

typedef struct {
    uint64_t magic, board_count, calls_logged;
    double is_virtual, virtual_s, call_cost_s, epoch_s, start_s, wall_offset_s, init_error;
    char driver[96];
    uint64_t calls[FUNCTIONS];
    call_t log[LOG_LENGTH];
    union { pthread_mutex_t mutex; char bytes[128]; } lock; /* between processes */
    board_t boards[MAX_BOARDS];
} state_t;

/* Prefix sums of what has no closed form of its own; each process keeps its own, since they follow from the state. */
typedef struct { double *sums; int64_t first, count; } sums_t;
typedef struct { double at_s, value_j; } mean_t; /* the last mean that a counter needed, which it needs many times */

/* A state file as this process sees it. */
typedef struct {
    state_t *state;
    sums_t noise[MAX_BOARDS], part[MAX_BOARDS];
    mean_t means[MAX_BOARDS][2];
    uint64_t generations[MAX_BOARDS];
    unsigned initialised; /* nvmlInit less nvmlShutdown, of this process */
} view_t;

static view_t *current; /* what NVML's functions talk about */
static view_t *view;    /* what is being computed on: set under the lock */
static pthread_mutex_t local = PTHREAD_MUTEX_INITIALIZER;

/* -- locking ------------------------------------------------------------------------------------------------------ */

static void lock_local(void) { pthread_mutex_lock(&local); }
static void unlock_local(void) { pthread_mutex_unlock(&local); }

/* A child of fork() must not inherit the lock from a thread that it does not have. */
__attribute__((constructor)) static void at_load(void) { pthread_atfork(lock_local, unlock_local, unlock_local); }

static void take_in(view_t *wanted) { /* the local lock is held */
    view = wanted;
    if (!wanted) return;
    pthread_mutex_t *shared = &wanted->state->lock.mutex;
    if (pthread_mutex_lock(shared) == EOWNERDEAD) pthread_mutex_consistent(shared); /* a process was killed in here */
}

static void take(view_t *wanted) {
    lock_local();
    take_in(wanted);
}

static void take_current(void) {
    lock_local();
    take_in(current);
}

static void give(void) {
    if (view) pthread_mutex_unlock(&view->state->lock.mutex);
    view = NULL;
    unlock_local();
}

/* -- time and chance ---------------------------------------------------------------------------------------------- */

static double now_s(void) {
    if (view->state->is_virtual) return view->state->virtual_s;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static uint64_t mixed(uint64_t x) { /* SplitMix64 */
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static double uniform(double seed, int64_t number, int use) {
    uint64_t bits = mixed(mixed((uint64_t)(int64_t)seed * 31 + (uint64_t)use) ^ (uint64_t)number);
    return ((double)(bits >> 11) + 0.5) / 9007199254740992.0;
}

static double gaussian(double seed, int64_t number) {
    double radius = sqrt(-2.0 * log(uniform(seed, number, FOR_RADIUS)));
    return radius * cos(6.283185307179586 * uniform(seed, number, FOR_ANGLE));
}

/* -- power and its integral --------------------------------------------------------------------------------------- */

static double epoch_s(void) { return view->state->epoch_s; }
static unsigned index_of(const board_t *b) { return (unsigned)(b - view->state->boards); }

/* Time spent high since the epoch's period began. Whole periods are subtracted before they are multiplied: a computer
   that has been up for months has large times, and the difference of two products of them would lose digits. */
static double square_high_s(const board_t *b, double t) {
    double high = b->duty * b->period_s;
    double first = floor((epoch_s() - b->wave_phase_s) / b->period_s);
    double periods = floor((t - b->wave_phase_s) / b->period_s);
    double rest = t - b->wave_phase_s - periods * b->period_s;
    return (periods - first) * high + (rest < high ? rest : high);
}

static double burst_offset_s(const board_t *b, int64_t slot) {
    return uniform(b->wave_seed, slot, FOR_BURST) * (b->slot_s - b->burst_s);
}

static double burst_high_s(const board_t *b, double t) {
    int64_t first = (int64_t)floor((epoch_s() - b->wave_phase_s) / b->slot_s);
    int64_t slot = (int64_t)floor((t - b->wave_phase_s) / b->slot_s);
    double inside = t - b->wave_phase_s - (double)slot * b->slot_s - burst_offset_s(b, slot);
    if (inside < 0) inside = 0;
    if (inside > b->burst_s) inside = b->burst_s;
    return (double)(slot - first) * b->burst_s + inside;
}

static uint64_t step_number(const board_t *b, double t) {
    uint64_t low = 0, high = b->step_count;
    while (high - low > 1) {
        uint64_t middle = (low + high) / 2;
        if (b->steps[middle].t_s <= t) low = middle; else high = middle;
    }
    return low;
}

/* The power of a step and its energy since the step, `x` seconds after it: a ramp, and a rest that settles. */
static double step_w(const board_t *b, const step_t *step, double x) {
    double target = step->power_w + (step->settle_w > 0 ? step->settle_w * exp(-x / b->settle_s) : 0);
    return x < step->ramp_s ? step->from_w + (target - step->from_w) * x / step->ramp_s : target;
}

static double step_j(const board_t *b, const step_t *step, double x) {
    double energy = step->power_w * x, ramp = step->ramp_s, inside = x < ramp ? x : ramp;
    if (ramp > 0) energy += (step->from_w - step->power_w) * (inside - inside * inside / (2 * ramp));
    if (step->settle_w > 0) {
        double tau = b->settle_s, fade = exp(-inside / tau);
        if (ramp > 0) energy += step->settle_w * tau * tau * (1 - fade * (1 + inside / tau)) / ramp;
        energy += step->settle_w * tau * (fade - exp(-x / tau)) * (x > inside);
    }
    return energy;
}

/* The wave without noise: its integral from some origin near the epoch, in closed form. */
static double wave_j(const board_t *b, double t) {
    double low_j = b->low_w * (t - epoch_s());
    switch ((int)b->wave) {
    case SQUARE: return low_j + (b->high_w - b->low_w) * square_high_s(b, t);
    case BURSTS: return low_j + (b->high_w - b->low_w) * burst_high_s(b, t);
    case STEPS: {
        const step_t *step = &b->steps[step_number(b, t)];
        return step->before_j + step_j(b, step, t - step->t_s);
    }
    default: return low_j;
    }
}

/* The wave without noise at t, and until when it stays there. */
static double wave_w(const board_t *b, double t, double *until) {
    *until = INFINITY;
    switch ((int)b->wave) {
    case SQUARE: {
        double begin = b->wave_phase_s + floor((t - b->wave_phase_s) / b->period_s) * b->period_s;
        double fall = begin + b->duty * b->period_s;
        *until = t < fall ? fall : begin + b->period_s;
        return t < fall ? b->high_w : b->low_w;
    }
    case BURSTS: {
        int64_t slot = (int64_t)floor((t - b->wave_phase_s) / b->slot_s);
        double begin = b->wave_phase_s + (double)slot * b->slot_s, rise = begin + burst_offset_s(b, slot);
        double fall = rise + b->burst_s;
        *until = t < rise ? rise : t < fall ? fall : begin + b->slot_s;
        return t >= rise && t < fall ? b->high_w : b->low_w;
    }
    case STEPS: {
        uint64_t number = step_number(b, t);
        if (number + 1 < b->step_count) *until = b->steps[number + 1].t_s;
        return step_w(b, &b->steps[number], t - b->steps[number].t_s);
    }
    default: return b->low_w;
    }
}

static int64_t noise_slot(const board_t *b, double t) { return (int64_t)floor(t / b->noise_slot_s); }

static double noise_w(const board_t *b, int64_t slot) { return b->noise_w * gaussian(b->seed, slot); }

/* Noise is constant between its changes, and with the wave never below 0: summed piece by piece. */
static double noisy_j(const board_t *b, double begin, double end) {
    double energy = 0;
    int64_t slot = noise_slot(b, begin);
    double noise = noise_w(b, slot), slot_end = (double)(slot + 1) * b->noise_slot_s;
    for (double t = begin; t < end;) {
        while (slot_end <= t) {
            noise = noise_w(b, ++slot);
            slot_end = (double)(slot + 1) * b->noise_slot_s;
        }
        double until, power = wave_w(b, t, &until) + noise;
        if (until > slot_end) until = slot_end;
        if (until > end) until = end;
        if (until <= t) until = nextafter(t, INFINITY); /* an edge that rounding put behind us */
        double piece = (int)b->wave == STEPS ? wave_j(b, until) - wave_j(b, t) + noise * (until - t) : power * (until - t);
        if (piece > 0) energy += piece;
        t = until;
    }
    return energy;
}

/* From the begin of the epoch's noise slot to t. */
static double noisy_total_j(const board_t *b, double t) {
    sums_t *known = &view->noise[b - view->state->boards];
    if (!known->sums) {
        known->first = noise_slot(b, epoch_s());
        known->sums = calloc(1, sizeof(double));
        known->count = 1; /* sums[i]: up to the begin of slot first + i */
    }
    /* Only slots that are over: the future of a step log is not written yet. */
    int64_t last = noise_slot(b, t), over = noise_slot(b, now_s());
    if (last > over) last = over;
    if (last - known->first >= known->count) {
        int64_t wanted = last - known->first + 1;
        known->sums = realloc(known->sums, (size_t)(wanted + 4096) * sizeof(double));
        for (; known->count < wanted; known->count++) {
            double begin = (double)(known->first + known->count - 1) * b->noise_slot_s;
            double end = (double)(known->first + known->count) * b->noise_slot_s;
            known->sums[known->count] = known->sums[known->count - 1] + noisy_j(b, begin, end);
        }
    }
    double origin = (double)known->first * b->noise_slot_s;
    if (last < known->first) return -noisy_j(b, t, origin);
    return known->sums[last - known->first] + noisy_j(b, (double)last * b->noise_slot_s, t);
}

static double total_j(const board_t *b, double t) { return b->noise_w > 0 ? noisy_total_j(b, t) : wave_j(b, t); }

static double between_j(const board_t *b, double begin, double end) { return total_j(b, end) - total_j(b, begin); }

/* -- what the sensors show ---------------------------------------------------------------------------------------- */

static double edge_s(const board_t *b, int64_t k) {
    double jitter = b->counter_jitter > 0 ? b->counter_jitter * (uniform(b->seed, k, FOR_JITTER) - 0.5) : 0;
    return b->counter_phase_s + ((double)k + jitter) * b->counter_period_s;
}

static int64_t edge_number(const board_t *b, double t) {
    int64_t k = (int64_t)floor((t - b->counter_phase_s) / b->counter_period_s) + 1;
    while (edge_s(b, k) > t) k--;
    return k;
}

/* A part-time counter sees the last `duty` of each period, and takes it for all of it. From an early edge to edge k. */
static double part_time_j(const board_t *b, int64_t k) {
    sums_t *known = &view->part[b - view->state->boards];
    if (!known->sums) {
        known->first = edge_number(b, epoch_s());
        known->sums = calloc(1, sizeof(double));
        known->count = 1;
    }
    if (k - known->first >= known->count) {
        int64_t wanted = k - known->first + 1;
        known->sums = realloc(known->sums, (size_t)(wanted + 4096) * sizeof(double));
        for (; known->count < wanted; known->count++) {
            double end = edge_s(b, known->first + known->count);
            double begin = edge_s(b, known->first + known->count - 1);
            double seen = b->counter_duty * (end - begin);
            known->sums[known->count] = known->sums[known->count - 1] + between_j(b, end - seen, end) / b->counter_duty;
        }
    }
    return k < known->first ? 0 : known->sums[k - known->first];
}

/* The energy up to t that a counter has taken in: late by its lag, and of power that is averaged over its box. The mean
   of the integral over the box is the integral of the mean over the box. */
static double taken_in_j(const board_t *b, double t, int which) {
    double end = t - b->counter_lag_s, box = b->counter_box_s;
    if (box <= 0) return total_j(b, end);
    mean_t *known = &view->means[index_of(b)][which];
    if (known->at_s != t) {
        double sum = 0;
        for (int i = 0; i < PANELS; i++) sum += total_j(b, end - box * (i + 0.5) / PANELS);
        *known = (mean_t){t, sum / PANELS};
    }
    return known->value_j;
}

/* What the counter has counted since `from`, at t: the energy up to the last edge. */
static double counted_j(const board_t *b, double from, double t) {
    int64_t k = edge_number(b, t);
    double edge = edge_s(b, k), first, next;
    if (edge <= from) return 0;
    if (b->counter_duty >= 1) return b->gain * (taken_in_j(b, edge, 0) - taken_in_j(b, from, 1));
    int64_t before = edge_number(b, from);
    first = edge_s(b, before);
    next = edge_s(b, before + 1);
    double share = (next - from) / (next - first);
    double begun = share * (part_time_j(b, before + 1) - part_time_j(b, before));
    return b->gain * (begun + part_time_j(b, k) - part_time_j(b, before + 1));
}

static unsigned long long counter_mj(const board_t *b, double t) {
    if (t > b->stuck_at_s) t = b->stuck_at_s;
    double energy = t >= b->reset_at_s ? counted_j(b, b->reset_at_s, t)
                                       : b->counter_start_j + counted_j(b, view->state->start_s, t);
    return (unsigned long long)floor(1000 * energy + 1e-6); /* 0.1 * 1000 is to be 100, not 99 */
}

static double refreshed_s(double t, double period, double phase) {
    return floor((t - phase) / period) * period + phase;
}

static unsigned mean_mw(const board_t *b, double end, double window) {
    double power = b->gain * between_j(b, end - window, end) / window;
    return power > 0 ? (unsigned)lround(1000 * power) : 0;
}

static unsigned power_mw(const board_t *b, double t, double window) {
    return mean_mw(b, refreshed_s(t, b->power_period_s, b->power_phase_s), window);
}

/* -- the test's side ---------------------------------------------------------------------------------------------- */

static const char *const number_names[] = {NUMBERS(AS_NAME) NULL};

static view_t *open_view(const char *path) {
    struct stat about;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return NULL;
    void *map = MAP_FAILED;
    if (!fstat(file, &about) && about.st_size == (off_t)sizeof(state_t))
        map = mmap(NULL, sizeof(state_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map == MAP_FAILED) return NULL;
    view_t *fresh = calloc(1, sizeof *fresh);
    fresh->state = map;
    if (fresh->state->magic == MAGIC) return fresh;
    munmap(map, sizeof(state_t));
    free(fresh);
    return NULL;
}

/* Make an all-zero file of the right size a state. */
int nvmlsim_create(const char *path) {
    int file = open(path, O_RDWR | O_CLOEXEC), code = -1;
    if (file < 0) return -1;
    state_t *state = MAP_FAILED;
    if (!ftruncate(file, sizeof(state_t)))
        state = mmap(NULL, sizeof(state_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (state == MAP_FAILED) return -1;
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    _Static_assert(sizeof state->lock == sizeof state->lock.bytes, "the lock does not fit its place");
    code = pthread_mutex_init(&state->lock.mutex, &shared);
    pthread_mutexattr_destroy(&shared);
    state->magic = MAGIC;
    munmap(state, sizeof(state_t));
    return code;
}

/* Open a state, NULL if it is none. */
void *nvmlsim_view(const char *path) { return open_view(path); }

/* Let NVML's functions talk about it. */
void nvmlsim_select(void *wanted) {
    lock_local();
    current = wanted;
    unlock_local();
}

void *nvmlsim_open(const char *path) {
    view_t *fresh = open_view(path);
    if (fresh) nvmlsim_select(fresh);
    return fresh;
}

void nvmlsim_close(void *closed) {
    lock_local();
    view_t *old = closed;
    if (current == old) current = NULL;
    for (int i = 0; i < MAX_BOARDS; i++) {
        free(old->noise[i].sums);
        free(old->part[i].sums);
    }
    munmap(old->state, sizeof(state_t));
    free(old);
    unlock_local();
}

void nvmlsim_lock(void *wanted) { take(wanted); }
void nvmlsim_unlock(void) { give(); }
unsigned long nvmlsim_size(void) { return sizeof(state_t); }
const char *nvmlsim_number_name(unsigned number) { return number_names[number]; }

static void settle(unsigned board) { /* drop prefix sums that a change of the configuration made wrong */
    uint64_t generation = view->state->boards[board].generation;
    if (view->generations[board] == generation) return;
    view->generations[board] = generation;
    free(view->noise[board].sums);
    free(view->part[board].sums);
    view->noise[board] = view->part[board] = (sums_t){0};
    memset(view->means[board], 0, sizeof view->means[board]);
}

double nvmlsim_energy_j(void *of, unsigned board, double begin, double end) {
    take(of);
    settle(board);
    double energy = between_j(&view->state->boards[board], begin, end);
    give();
    return energy;
}

double nvmlsim_power_w(void *of, unsigned board, double t) {
    take(of);
    const board_t *b = &view->state->boards[board];
    double until, power = wave_w(b, t, &until);
    if (b->noise_w > 0) power += noise_w(b, noise_slot(b, t));
    give();
    return power > 0 ? power : 0;
}

/* Append a step at t. Steps that are planned for later are dropped: nobody has read them. */
static int append(board_t *b, double t, double power, int shaped) {
    while (b->step_count > 1 && b->steps[b->step_count - 1].t_s > t) b->step_count--;
    if (b->step_count >= MAX_STEPS) return -1;
    const step_t *last = &b->steps[b->step_count - 1];
    step_t fresh = {t, power, last->before_j + step_j(b, last, t - last->t_s), power, 0, 0};
    if (shaped) {
        fresh.from_w = step_w(b, last, t - last->t_s);
        fresh.ramp_s = power > fresh.from_w ? b->rise_s : b->fall_s;
        fresh.settle_w = power < fresh.from_w ? b->settle_w : 0;
    }
    b->steps[b->step_count++] = fresh;
    return 0;
}

/* A step now; its time, or -1 if the log is full. Under the lock, so that nobody has read a later time before. */
double nvmlsim_set_power(void *of, unsigned board, double power) {
    take(of);
    double now = now_s();
    if (append(&view->state->boards[board], now, power, 1)) now = -1;
    give();
    return now;
}

/* Play a trace from now on: `count` powers, each from its time (seconds from now) to the next. */
double nvmlsim_play(void *of, unsigned board, unsigned count, const double *times, const double *powers) {
    take(of);
    double now = now_s(), begun = now;
    for (unsigned i = 0; i < count && now >= 0; i++)
        if (append(&view->state->boards[board], begun + times[i], powers[i], 0)) now = -1;
    give();
    return now;
}

/* -- calls -------------------------------------------------------------------------------------------------------- */

/* Numbers of the functions in counts and log: the same in every process. */
static const char *const names[] = {
    "?", "nvmlInit_v2", "nvmlShutdown", "nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion", "nvmlSystemGetCudaDriverVersion_v2", "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetHandleByPciBusId_v2",
    "nvmlDeviceGetHandleBySerial", "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetIndex",
    "nvmlDeviceGetMinorNumber", "nvmlDeviceGetSerial", "nvmlDeviceGetBoardId", "nvmlDeviceGetBoardPartNumber",
    "nvmlDeviceGetVbiosVersion", "nvmlDeviceGetMultiGpuBoard", "nvmlDeviceGetArchitecture", "nvmlDeviceGetBrand",
    "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetPersistenceMode", "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetDisplayActive", "nvmlDeviceGetDisplayMode", "nvmlDeviceGetEccMode", "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetPowerState", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetC2cModeInfoV",
    "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetSamples", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementMode",
    "nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints", "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetSupportedClocksEventReasons",
    "nvmlDeviceGetSupportedClocksThrottleReasons", "nvmlDeviceGetClockInfo", "nvmlDeviceGetMaxClockInfo",
    "nvmlDeviceGetApplicationsClock", "nvmlDeviceGetClock", "nvmlDeviceGetSupportedMemoryClocks",
    "nvmlDeviceGetSupportedGraphicsClocks", "nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetTemperatureThreshold", "nvmlDeviceGetFanSpeed", "nvmlDeviceGetNumFans",
    "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses_v2", "nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceIsMigDeviceHandle",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceSetPowerManagementLimit", "nvmlDeviceSetPersistenceMode", "nvmlDeviceSetGpuLockedClocks",
    "nvmlDeviceResetGpuLockedClocks", "nvmlDeviceSetMemoryLockedClocks", "nvmlDeviceResetMemoryLockedClocks",
    "nvmlDeviceSetApplicationsClocks", "nvmlDeviceResetApplicationsClocks",
};
_Static_assert(sizeof names / sizeof *names <= FUNCTIONS, "too many functions");

const char *nvmlsim_function(unsigned number) {
    return number < sizeof names / sizeof *names ? names[number] : "";
}

static unsigned number_of(const char *function) {
    for (unsigned i = 1; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], function)) return i;
    return 0;
}

/* Handles are numbers, not pointers: they stay valid when a state is closed, and mean nothing if they are wrong. */
typedef struct nvmlDevice_st *device_t;
#define HANDLES 0x4e560000UL
static device_t handle_of(unsigned board, unsigned slice) { return (device_t)(HANDLES + 16 * board + slice); }
static unsigned slice_of(device_t device) { return (unsigned)((uintptr_t)device % 16); }

static int lost(const board_t *b) { return now_s() >= b->lost_at_s; }

static void logged(unsigned function, double board) {
    state_t *state = view->state;
    if (state->is_virtual) state->virtual_s += state->call_cost_s;
    state->calls[function]++;
    state->log[state->calls_logged++ % LOG_LENGTH] = (call_t){now_s(), function, board};
}

static int begun_system(unsigned function) {
    take_current();
    if (!view || !view->initialised) return UNINITIALIZED;
    logged(function, -1);
    return OK;
}

/* Log the call and say whether the board fails it. Takes the lock; every caller gives it back through `done`. */
static int begun(unsigned function, device_t device, int feature, board_t **board) {
    uintptr_t offset = (uintptr_t)device - HANDLES;
    take_current();
    if (!view || !view->initialised) return UNINITIALIZED;
    if (offset >= 16 * view->state->board_count) return INVALID_ARGUMENT;
    board_t *b = *board = &view->state->boards[offset / 16];
    settle(index_of(b));
    logged(function, index_of(b));
    if (lost(b)) return GPU_IS_LOST;
    if (slice_of(device) && !(feature & ON_SLICES)) return NOT_SUPPORTED;
    if (now_s() >= b->unsupported_from_s && ((int)b->unsupported & feature)) return NOT_SUPPORTED;
    if (b->unknown_rate > 0 && uniform(b->seed, (int64_t)++b->draws, FOR_ERROR) < b->unknown_rate) return UNKNOWN;
    return OK;
}

static int done(int code) {
    give();
    return code;
}

#define NUMBER \
    static unsigned number; \
    if (!number) number = number_of(__func__)
#define BEGIN_SYSTEM \
    NUMBER; \
    int code = begun_system(number); \
    if (code) return done(code)
#define BEGIN(device, feature) \
    NUMBER; \
    board_t *b; \
    int code = begun(number, device, feature, &b); \
    if (code) return done(code)
#define ANSWER(device, feature, to, value) \
    BEGIN(device, feature); \
    if (!(to)) return done(INVALID_ARGUMENT); \
    *(to) = (value); \
    return done(OK)
/* What an ordinary user may not do. */
#define FORBIDDEN(device) \
    BEGIN(device, 0); \
    return done(NO_PERMISSION)

int nvmlInit_v2(void) {
    NUMBER;
    lock_local();
    const char *path = getenv("PERJOULE_NVML_SIMULATOR");
    if (!current && path) current = open_view(path);
    take_in(current);
    if (!view) return done(DRIVER_NOT_LOADED);
    logged(number, -1);
    if (view->state->init_error) return done((int)view->state->init_error);
    view->initialised++;
    return done(OK);
}
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlInit(void) { return nvmlInit_v2(); }
int nvmlShutdown(void) {
    NUMBER;
    take_current();
    if (!view || !view->initialised) return done(UNINITIALIZED);
    view->initialised--;
    logged(number, -1);
    return done(OK);
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case 10: return "Timeout";
    case GPU_IS_LOST: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    case VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

static int put(char *to, unsigned length, const char *words) {
    if (!to) return INVALID_ARGUMENT;
    if (strlen(words) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(to, words);
    return OK;
}

/* -- the system and its boards ------------------------------------------------------------------------------------ */

int nvmlSystemGetDriverVersion(char *to, unsigned length) {
    BEGIN_SYSTEM;
    return done(put(to, length, view->state->driver));
}
int nvmlSystemGetNVMLVersion(char *to, unsigned length) {
    BEGIN_SYSTEM;
    char words[128];
    snprintf(words, sizeof words, "13.%s", view->state->driver);
    return done(put(to, length, words));
}
int nvmlSystemGetCudaDriverVersion(int *version) { BEGIN_SYSTEM; *version = 13000; return done(OK); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { BEGIN_SYSTEM; *version = 13000; return done(OK); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    BEGIN_SYSTEM;
    *count = (unsigned)view->state->board_count;
    return done(OK);
}

static void mig_uuid(const board_t *b, unsigned slice, char *to) { /* 96 bytes; slices count from 1 */
    uint64_t bits = slice;
    for (const char *letter = b->uuid; *letter; letter++) bits = mixed(bits ^ (uint64_t)(unsigned char)*letter);
    snprintf(to, 96, "MIG-%08x-%04x-5%03x-b%03x-%012llx", (unsigned)(bits >> 32), (unsigned)(bits >> 16) & 0xffff,
             (unsigned)(bits >> 4) & 0xfff, (unsigned)bits & 0xfff, (unsigned long long)(mixed(bits) >> 16));
}

static unsigned slices(const board_t *b) { return b->mig ? (unsigned)b->mig_devices : 0; }

static int found(unsigned index, unsigned slice, device_t *device) {
    *device = handle_of(index, slice);
    return lost(&view->state->boards[index]) ? GPU_IS_LOST : OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    BEGIN_SYSTEM;
    return done(index < view->state->board_count ? found(index, 0, device) : INVALID_ARGUMENT);
}
int nvmlDeviceGetHandleByIndex(unsigned index, device_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device_t *device) {
    BEGIN_SYSTEM;
    if (!uuid) return done(INVALID_ARGUMENT);
    for (unsigned i = 0; i < view->state->board_count; i++) {
        const board_t *b = &view->state->boards[i];
        if (!strcmp(b->uuid, uuid)) return done(found(i, 0, device));
        for (unsigned slice = 1; slice <= slices(b); slice++) {
            char words[96];
            mig_uuid(b, slice, words);
            if (!strcmp(words, uuid)) return done(found(i, slice, device));
        }
    }
    return done(NOT_FOUND);
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, device_t *device) {
    BEGIN_SYSTEM;
    unsigned domain, bus, slot, function;
    if (!bus_id || sscanf(bus_id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4) return done(INVALID_ARGUMENT);
    if (domain || slot || function || bus < 1 || bus > view->state->board_count) return done(NOT_FOUND);
    return done(found(bus - 1, 0, device));
}

static unsigned long long serial(unsigned index) { return 1320021000000ULL + index; }
int nvmlDeviceGetHandleBySerial(const char *words, device_t *device) {
    BEGIN_SYSTEM;
    for (unsigned i = 0; words && i < view->state->board_count; i++)
        if (strtoull(words, NULL, 10) == serial(i)) return done(found(i, 0, device));
    return done(NOT_FOUND);
}
int nvmlDeviceGetSerial(device_t device, char *to, unsigned length) {
    BEGIN(device, ON_SLICES);
    char words[32];
    snprintf(words, sizeof words, "%llu", serial(index_of(b)));
    return done(put(to, length, words));
}

int nvmlDeviceGetUUID(device_t device, char *to, unsigned length) {
    BEGIN(device, ON_SLICES);
    char words[96];
    snprintf(words, sizeof words, "%s", b->uuid);
    if (slice_of(device)) mig_uuid(b, slice_of(device), words);
    return done(put(to, length, words));
}
int nvmlDeviceGetName(device_t device, char *to, unsigned length) {
    BEGIN(device, ON_SLICES);
    char words[128];
    snprintf(words, sizeof words, "%s%s", b->model, slice_of(device) ? " MIG 1g.10gb" : "");
    return done(put(to, length, words));
}
int nvmlDeviceGetBoardPartNumber(device_t device, char *to, unsigned length) {
    BEGIN(device, 0);
    return done(put(to, length, "900-00000-0000-000"));
}
int nvmlDeviceGetVbiosVersion(device_t device, char *to, unsigned length) {
    BEGIN(device, 0);
    return done(put(to, length, "00.00.00.00.00"));
}
int nvmlDeviceGetIndex(device_t device, unsigned *index) { ANSWER(device, ON_SLICES, index, index_of(b)); }
int nvmlDeviceGetMinorNumber(device_t device, unsigned *minor) { ANSWER(device, 0, minor, index_of(b)); }
int nvmlDeviceGetBoardId(device_t device, unsigned *id) { ANSWER(device, 0, id, 256 * (index_of(b) + 1)); }
int nvmlDeviceGetMultiGpuBoard(device_t device, unsigned *several) { ANSWER(device, 0, several, 0); }
int nvmlDeviceGetBrand(device_t device, unsigned *brand) { ANSWER(device, ON_SLICES, brand, 14); } /* NVIDIA */
int nvmlDeviceGetPersistenceMode(device_t device, unsigned *mode) { ANSWER(device, 0, mode, 1); }
int nvmlDeviceGetComputeMode(device_t device, unsigned *mode) { ANSWER(device, ON_SLICES, mode, 0); }
int nvmlDeviceGetDisplayActive(device_t device, unsigned *active) { ANSWER(device, 0, active, 0); }
int nvmlDeviceGetDisplayMode(device_t device, unsigned *mode) { ANSWER(device, 0, mode, 0); }
int nvmlDeviceGetPerformanceState(device_t device, unsigned *state) { ANSWER(device, 0, state, 0); }
int nvmlDeviceGetPowerState(device_t device, unsigned *state) { ANSWER(device, 0, state, 0); }
int nvmlDeviceGetPowerManagementMode(device_t device, unsigned *mode) { ANSWER(device, F_LIMIT, mode, 1); }
int nvmlDeviceGetArchitecture(device_t device, unsigned *architecture) {
    ANSWER(device, ON_SLICES, architecture, (unsigned)b->architecture);
}
int nvmlDeviceGetEccMode(device_t device, unsigned *mode, unsigned *pending) {
    BEGIN(device, 0);
    *mode = *pending = 1;
    return done(OK);
}
int nvmlDeviceGetCudaComputeCapability(device_t device, int *major, int *minor) {
    static const int capabilities[] = {0, 0, 30, 52, 60, 70, 75, 80, 89, 90, 100};
    BEGIN(device, ON_SLICES);
    unsigned architecture = (unsigned)b->architecture;
    int capability = architecture < sizeof capabilities / sizeof *capabilities ? capabilities[architecture] : 120;
    *major = capability / 10;
    *minor = capability % 10;
    return done(OK);
}

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci_t;

int nvmlDeviceGetPciInfo_v3(device_t device, pci_t *pci) {
    BEGIN(device, 0);
    memset(pci, 0, sizeof *pci);
    pci->bus = index_of(b) + 1;
    pci->device_id = 0x10de;
    snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "0000:%02X:00.0", pci->bus & 0xff);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus & 0xff);
    return done(OK);
}

typedef struct { unsigned enabled; } c2c_t;
int nvmlDeviceGetC2cModeInfoV(device_t device, c2c_t *info) { /* the CPU's link of Grace Hopper */
    BEGIN(device, 0);
    if (!b->module_only) return done(NOT_SUPPORTED);
    info->enabled = 1;
    return done(OK);
}

/* -- energy and power --------------------------------------------------------------------------------------------- */

int nvmlDeviceGetTotalEnergyConsumption(device_t device, unsigned long long *energy_mj) {
    ANSWER(device, F_ENERGY, energy_mj, counter_mj(b, now_s()));
}

/* Polled again within `too_fast_s`, by whomever, power readings answer 0, as some drivers do. */
static int too_fast(board_t *b) {
    double now = now_s();
    int fast = now - b->last_poll_s < b->too_fast_s;
    b->last_poll_s = now;
    return fast;
}

int nvmlDeviceGetPowerUsage(device_t device, unsigned *value_mw) {
    BEGIN(device, F_USAGE);
    double window = b->usage_is_instant ? b->instant_window_s : b->average_window_s;
    *value_mw = too_fast(b) ? 0 : power_mw(b, now_s(), window);
    return done(OK);
}

static double limit_w(const board_t *b) { return now_s() >= b->limit_change_s ? b->limit_after_w : b->limit_w; }
#define LEAST_LIMIT_W 100.0
static double most_limit_w(const board_t *b) {
    return isinf(b->limit_change_s) ? b->limit_w : fmax(b->limit_w, b->limit_after_w);
}
static unsigned in_mw(double power) { return (unsigned)lround(1000 * power); }

typedef union { double d; unsigned u; unsigned long ul; unsigned long long ull; } value_t;
typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency_us;
    uint32_t value_type, code;
    value_t value;
} field_t;
enum { TOTAL_ENERGY = 83, AVERAGE = 185, INSTANT = 186, LEAST_LIMIT = 187, MOST_LIMIT = 188, DEFAULT_LIMIT = 189,
       CURRENT_LIMIT = 190 };

static uint32_t field_value(board_t *b, field_t *field, int fast) {
    double now = now_s();
    int feature = field->field == TOTAL_ENERGY ? F_ENERGY_FIELD : field->field == AVERAGE ? F_AVERAGE
                : field->field == INSTANT ? F_INSTANT
                : field->field >= LEAST_LIMIT && field->field <= CURRENT_LIMIT ? F_LIMIT : 0;
    if (!feature || (now >= b->unsupported_from_s && ((int)b->unsupported & feature))) return NOT_SUPPORTED;
    /* Scopes are those of power and its limits; the energy counter has none. */
    if (feature != F_ENERGY_FIELD && field->scope != (b->module_only ? 1u : 0u)) return NOT_SUPPORTED;
    field->value_type = 1;
    switch (field->field) {
    case TOTAL_ENERGY: field->value_type = 3; field->value.ull = counter_mj(b, now); return OK;
    case AVERAGE: field->value.u = fast ? 0 : power_mw(b, now, b->average_window_s); return OK;
    case INSTANT: field->value.u = fast ? 0 : power_mw(b, now, b->instant_window_s); return OK;
    case LEAST_LIMIT: field->value.u = in_mw(LEAST_LIMIT_W); return OK;
    case MOST_LIMIT: field->value.u = in_mw(most_limit_w(b)); return OK;
    case DEFAULT_LIMIT: field->value.u = in_mw(b->limit_w); return OK;
    default: field->value.u = in_mw(limit_w(b)); return OK;
    }
}

static double wall_us(double t) { return 1e6 * (t + view->state->wall_offset_s); }

int nvmlDeviceGetFieldValues(device_t device, int count, field_t *fields) {
    BEGIN(device, 0);
    int power = 0;
    for (int i = 0; i < count; i++) power |= fields[i].field == AVERAGE || fields[i].field == INSTANT;
    int fast = power && too_fast(b);
    for (int i = 0; i < count; i++) {
        fields[i].timestamp = (int64_t)wall_us(now_s());
        fields[i].latency_us = 0;
        fields[i].value.ull = 0;
        fields[i].code = field_value(b, &fields[i], fast);
    }
    return done(OK);
}

typedef struct { unsigned long long timestamp_us; value_t value; } sample_t;

int nvmlDeviceGetSamples(device_t device, unsigned type, unsigned long long since_us, unsigned *value_type,
                         unsigned *count, sample_t *samples) {
    BEGIN(device, F_SAMPLES);
    if (type != 0) return done(NOT_SUPPORTED);
    double last = refreshed_s(now_s(), b->sample_s, 0);
    unsigned there = 0;
    *value_type = 1;
    for (int i = SAMPLES - 1; i >= 0; i--) {
        double t = last - i * b->sample_s;
        unsigned long long stamp = (unsigned long long)(wall_us(t) + 0.5);
        if (stamp <= since_us) continue;
        if (samples) {
            if (there >= *count) break;
            samples[there].timestamp_us = stamp;
            samples[there].value.ull = 0;
            samples[there].value.u = mean_mw(b, t, b->sample_s);
        }
        there++;
    }
    *count = there;
    return done(there ? OK : NOT_FOUND);
}

int nvmlDeviceGetEnforcedPowerLimit(device_t device, unsigned *value_mw) {
    ANSWER(device, F_LIMIT, value_mw, in_mw(limit_w(b)));
}
int nvmlDeviceGetPowerManagementLimit(device_t device, unsigned *value_mw) {
    ANSWER(device, F_LIMIT, value_mw, in_mw(limit_w(b)));
}
int nvmlDeviceGetPowerManagementDefaultLimit(device_t device, unsigned *value_mw) {
    ANSWER(device, F_LIMIT, value_mw, in_mw(b->limit_w));
}
int nvmlDeviceGetPowerManagementLimitConstraints(device_t device, unsigned *least_mw, unsigned *most_mw) {
    BEGIN(device, F_LIMIT);
    *least_mw = in_mw(LEAST_LIMIT_W);
    *most_mw = in_mw(most_limit_w(b));
    return done(OK);
}

/* -- clocks, temperature, memory, processes ----------------------------------------------------------------------- */

static unsigned long long throttle_mask(const board_t *b) {
    double now = now_s();
    return now >= b->throttle_from_s && now < b->throttle_until_s ? (unsigned long long)b->throttle : 0;
}
#define EVERY_REASON 0x1ffULL
int nvmlDeviceGetCurrentClocksEventReasons(device_t device, unsigned long long *mask) {
    ANSWER(device, F_CLOCKS, mask, throttle_mask(b));
}
int nvmlDeviceGetCurrentClocksThrottleReasons(device_t device, unsigned long long *mask) {
    ANSWER(device, F_CLOCKS, mask, throttle_mask(b));
}
int nvmlDeviceGetSupportedClocksEventReasons(device_t device, unsigned long long *mask) {
    ANSWER(device, F_CLOCKS, mask, EVERY_REASON);
}
int nvmlDeviceGetSupportedClocksThrottleReasons(device_t device, unsigned long long *mask) {
    ANSWER(device, F_CLOCKS, mask, EVERY_REASON);
}

enum { MEMORY_CLOCK = 2, MEMORY_MHZ = 2619 };
static unsigned clock_mhz(const board_t *b, unsigned type) {
    if (type == MEMORY_CLOCK) return MEMORY_MHZ;
    return (unsigned)(now_s() >= b->sm_clock_change_s ? b->sm_clock_after_mhz : b->sm_clock_mhz);
}
static unsigned most_mhz(const board_t *b, unsigned type) {
    if (type == MEMORY_CLOCK) return MEMORY_MHZ;
    return (unsigned)(isinf(b->sm_clock_change_s) ? b->sm_clock_mhz : fmax(b->sm_clock_mhz, b->sm_clock_after_mhz));
}
int nvmlDeviceGetClockInfo(device_t device, unsigned type, unsigned *mhz) {
    ANSWER(device, F_CLOCKS, mhz, clock_mhz(b, type));
}
int nvmlDeviceGetMaxClockInfo(device_t device, unsigned type, unsigned *mhz) {
    ANSWER(device, F_CLOCKS, mhz, most_mhz(b, type));
}
int nvmlDeviceGetApplicationsClock(device_t device, unsigned type, unsigned *mhz) {
    ANSWER(device, F_CLOCKS, mhz, most_mhz(b, type));
}
int nvmlDeviceGetClock(device_t device, unsigned type, unsigned id, unsigned *mhz) {
    (void)id;
    ANSWER(device, F_CLOCKS, mhz, clock_mhz(b, type));
}
static int one_clock(unsigned *count, unsigned *clocks, unsigned mhz) {
    unsigned room = *count;
    *count = 1;
    if (room < 1 || !clocks) return INSUFFICIENT_SIZE;
    clocks[0] = mhz;
    return OK;
}
int nvmlDeviceGetSupportedMemoryClocks(device_t device, unsigned *count, unsigned *clocks) {
    BEGIN(device, F_CLOCKS);
    return done(one_clock(count, clocks, MEMORY_MHZ));
}
int nvmlDeviceGetSupportedGraphicsClocks(device_t device, unsigned memory_mhz, unsigned *count, unsigned *clocks) {
    BEGIN(device, F_CLOCKS);
    return done(memory_mhz == MEMORY_MHZ ? one_clock(count, clocks, most_mhz(b, 0)) : NOT_FOUND);
}

static int temperature_c(const board_t *b) {
    return (int)floor(b->temperature_c + b->warming_c_per_s * (now_s() - view->state->start_s));
}
int nvmlDeviceGetTemperature(device_t device, unsigned sensor, unsigned *value_c) {
    (void)sensor;
    ANSWER(device, F_TEMPERATURE, value_c, (unsigned)temperature_c(b));
}
typedef struct { unsigned version, sensor; int value_c; } temperature_t;
int nvmlDeviceGetTemperatureV(device_t device, temperature_t *temperature) {
    BEGIN(device, F_TEMPERATURE);
    if (temperature->version != (sizeof *temperature | 1u << 24)) return done(VERSION_MISMATCH);
    temperature->value_c = temperature_c(b);
    return done(OK);
}
int nvmlDeviceGetTemperatureThreshold(device_t device, unsigned threshold, unsigned *value_c) {
    ANSWER(device, F_TEMPERATURE, value_c, threshold == 0 ? 95 : 90); /* shutdown, slowdown */
}
int nvmlDeviceGetFanSpeed(device_t device, unsigned *speed) {
    BEGIN(device, 0);
    (void)speed;
    return done(NOT_SUPPORTED);
}
int nvmlDeviceGetNumFans(device_t device, unsigned *count) { ANSWER(device, 0, count, 0); }

typedef struct { unsigned gpu, memory; } utilisation_t;
int nvmlDeviceGetUtilizationRates(device_t device, utilisation_t *utilisation) {
    BEGIN(device, F_UTILISATION);
    if (b->mig) return done(NOT_SUPPORTED);
    double now = now_s(), span = b->high_w - b->low_w, power = between_j(b, now - 0.1, now) / 0.1;
    double share = span > 0 ? (power - b->low_w) / span : 0;
    utilisation->gpu = utilisation->memory = (unsigned)lround(100 * (share < 0 ? 0 : share > 1 ? 1 : share));
    return done(OK);
}

static unsigned long long memory_used(const board_t *b) {
    return (unsigned long long)(now_s() >= b->memory_change_s ? b->memory_after_bytes : b->memory_bytes);
}
typedef struct { unsigned long long total, unused, used; } memory_t;
int nvmlDeviceGetMemoryInfo(device_t device, memory_t *memory) {
    BEGIN(device, F_MEMORY | ON_SLICES);
    memory->total = (unsigned long long)b->memory_total_bytes;
    memory->used = memory_used(b);
    memory->unused = memory->total - memory->used;
    return done(OK);
}
typedef struct { unsigned version; unsigned long long total, reserved, unused, used; } memory2_t;
int nvmlDeviceGetMemoryInfo_v2(device_t device, memory2_t *memory) {
    BEGIN(device, F_MEMORY | ON_SLICES);
    if (memory->version != (sizeof *memory | 2u << 24)) return done(VERSION_MISMATCH);
    memory->total = (unsigned long long)b->memory_total_bytes;
    memory->reserved = 0;
    memory->used = memory_used(b);
    memory->unused = memory->total - memory->used;
    return done(OK);
}

typedef struct { unsigned pid; unsigned long long memory; } process1_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } process_t;
#define PROCESS_BYTES (1ULL << 30)
#define NO_INSTANCE 0xffffffffU

static unsigned process_count(const board_t *b) {
    double now = now_s();
    return now >= b->pids_from_s && now < b->pids_until_s ? (unsigned)b->pid_count : 0;
}
/* 0: there are none, or no room for them; `count` says how many there are. */
static int room_for(unsigned *count, unsigned there, int *code) {
    unsigned room = *count;
    *count = there;
    *code = room < there ? INSUFFICIENT_SIZE : OK;
    return *code == OK;
}
static int processes(const board_t *b, unsigned *count, process_t *list) {
    int code;
    if (room_for(count, process_count(b), &code))
        for (unsigned i = 0; i < *count; i++)
            list[i] = (process_t){(unsigned)b->pids[i], PROCESS_BYTES, NO_INSTANCE, NO_INSTANCE};
    return code;
}
int nvmlDeviceGetComputeRunningProcesses(device_t device, unsigned *count, process1_t *list) {
    BEGIN(device, F_PROCESSES);
    if (room_for(count, process_count(b), &code))
        for (unsigned i = 0; i < *count; i++) list[i] = (process1_t){(unsigned)b->pids[i], PROCESS_BYTES};
    return done(code);
}
int nvmlDeviceGetComputeRunningProcesses_v2(device_t device, unsigned *count, process_t *list) {
    BEGIN(device, F_PROCESSES);
    return done(processes(b, count, list));
}
int nvmlDeviceGetComputeRunningProcesses_v3(device_t device, unsigned *count, process_t *list) {
    BEGIN(device, F_PROCESSES);
    return done(processes(b, count, list));
}
int nvmlDeviceGetGraphicsRunningProcesses(device_t device, unsigned *count, process1_t *list) {
    (void)list;
    ANSWER(device, F_PROCESSES, count, 0);
}
int nvmlDeviceGetGraphicsRunningProcesses_v2(device_t device, unsigned *count, process_t *list) {
    (void)list;
    ANSWER(device, F_PROCESSES, count, 0);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(device_t device, unsigned *count, process_t *list) {
    (void)list;
    ANSWER(device, F_PROCESSES, count, 0);
}

/* -- slices ------------------------------------------------------------------------------------------------------- */

int nvmlDeviceGetMigMode(device_t device, unsigned *mode, unsigned *pending) {
    BEGIN(device, F_MIG);
    *mode = *pending = b->mig != 0;
    return done(OK);
}
int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count) {
    ANSWER(device, F_MIG, count, b->mig ? MAX_SLICES : 0);
}
int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *slice) {
    BEGIN(device, F_MIG);
    if (index >= slices(b)) return done(b->mig ? NOT_FOUND : NOT_SUPPORTED);
    return done(found(index_of(b), index + 1, slice));
}
int nvmlDeviceIsMigDeviceHandle(device_t device, unsigned *is_slice) {
    ANSWER(device, ON_SLICES, is_slice, slice_of(device) != 0);
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t slice, device_t *device) {
    BEGIN(slice, ON_SLICES);
    return done(slice_of(slice) ? found(index_of(b), 0, device) : INVALID_ARGUMENT);
}
int nvmlDeviceGetGpuInstanceId(device_t device, unsigned *id) {
    BEGIN(device, ON_SLICES);
    *id = slice_of(device);
    return done(slice_of(device) ? OK : NOT_SUPPORTED);
}
int nvmlDeviceGetComputeInstanceId(device_t device, unsigned *id) {
    BEGIN(device, ON_SLICES);
    *id = 0;
    return done(slice_of(device) ? OK : NOT_SUPPORTED);
}

/* -- settings ----------------------------------------------------------------------------------------------------- */

int nvmlDeviceSetPowerManagementLimit(device_t device, unsigned limit_mw) { (void)limit_mw; FORBIDDEN(device); }
int nvmlDeviceSetPersistenceMode(device_t device, unsigned mode) { (void)mode; FORBIDDEN(device); }
int nvmlDeviceSetGpuLockedClocks(device_t device, unsigned least, unsigned most) {
    (void)least;
    (void)most;
    FORBIDDEN(device);
}
int nvmlDeviceResetGpuLockedClocks(device_t device) { FORBIDDEN(device); }
int nvmlDeviceSetMemoryLockedClocks(device_t device, unsigned least, unsigned most) {
    (void)least;
    (void)most;
    FORBIDDEN(device);
}
int nvmlDeviceResetMemoryLockedClocks(device_t device) { FORBIDDEN(device); }
int nvmlDeviceSetApplicationsClocks(device_t device, unsigned memory, unsigned graphics) {
    (void)memory;
    (void)graphics;
    FORBIDDEN(device);
}
int nvmlDeviceResetApplicationsClocks(device_t device) { FORBIDDEN(device); }
