/* What the C library of trace-cmd needs for three fields of every event: skbaddr, len and name.
 *
 *     cc -O2 -o three_fields three_fields.c $(pkg-config --cflags --libs libtracecmd)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trace-cmd.h>

struct event_fields {
    int known;
    struct tep_format_field *skbaddr, *len, *name;
};

struct sums {
    struct event_fields events[65536];
    unsigned long long count, addresses, lengths, letters;
};

static void look_up(struct event_fields *fields, struct tep_event *event)
{
    fields->known = 1;
    fields->skbaddr = tep_find_field(event, "skbaddr");
    fields->len = tep_find_field(event, "len");
    fields->name = tep_find_field(event, "name");
}

static int add(struct tracecmd_input *handle, struct tep_record *record, int cpu, void *data)
{
    struct sums *sums = data;
    struct tep_handle *tep = tracecmd_get_tep(handle);
    int id = tep_data_type(tep, record);
    struct event_fields *fields = &sums->events[id & 0xffff];
    unsigned long long value;

    if (!fields->known) {
        struct tep_event *event = tep_find_event(tep, id);
        if (!event)
            return 0;
        look_up(fields, event);
    }
    sums->count++;
    if (fields->skbaddr && !tep_read_number_field(fields->skbaddr, record->data, &value))
        sums->addresses += value;
    if (fields->len && !tep_read_number_field(fields->len, record->data, &value))
        sums->lengths += value;
    if (fields->name && !tep_read_number_field(fields->name, record->data, &value))
        sums->letters += strlen((char *)record->data + (value & 0xffff));
    return 0;
}

int main(int argc, char **argv)
{
    static struct sums sums;
    struct tracecmd_input *handle;

    if (argc != 2 || !(handle = tracecmd_open(argv[1], 0))) {
        fprintf(stderr, "usage: three_fields trace.dat\n");
        return 1;
    }
    tracecmd_iterate_events(handle, NULL, 0, add, &sums);
    /* Instances are handles of their own. */
    for (int i = 0; i < tracecmd_buffer_instances(handle); i++) {
        struct tracecmd_input *instance = tracecmd_buffer_instance_handle(handle, i);
        if (instance)
            tracecmd_iterate_events(instance, NULL, 0, add, &sums);
    }
    printf("%llu events, %llx, %llu, %llu\n", sums.count, sums.addresses, sums.lengths,
           sums.letters);
    return 0;
}
