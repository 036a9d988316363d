"""The HTTP service: OpenAI's and Anthropic's interfaces, and a page, on models that run in worker processes.

One request goes through it from the top to the bottom of this list, and its answer back.

    run            opens the port, runs until a signal, ends in order
    connections    bounds on connections: slow headers, idle ones, too many
    app            the routes
    guard          who may ask: Host and Origin, the key, size and kind of the body
    json_body      reads a body within bounds
    openai_chat    POST /v1/chat/completions: a body to a `ChatRequest`, events to chunks
    openai_responses, anthropic_messages    the same for /v1/responses and /v1/messages
    fields         the fields of each interface: used, ignored, refused; from them the checks, the docs and OpenAPI
    field_values   the values of fields, checked
    form_fields, tool_fields    what an answer has to be like, and the tools that it may call
    content        parts of messages that the interfaces share
    shown_parts    pictures and clips as a question takes them
    conversation   messages to turns, results of tools by their calls
    pictures       bytes of a picture or clip: data URIs, files under --media-root, addresses if they are allowed
    remote_pictures, picture_urls, public_addresses    fetch an address that a stranger named
    boxes_field    the field with the boxes of an answer
    client_words   notices and errors in words that clients can follow
    responding     sends an answer, whole or as server-sent events, and notices a client that leaves
    response_answer, message_answer    the answers of the last two: events to their shapes; calls are in written_calls
    answering      a request on its way: model, preparation, place in the queue, events
    clips          decoders of clips: their bounds, and their end when a client leaves
    checked_wishes a form and tools checked, in a thread
    turns          messages to a prompt; turns that were seen before are neither decoded nor cut again
    admission      places for requests: as many at once as were asked for, in turn by client
    model_pool     the models: loaded when asked for, unloaded when idle or in the way, found back when they die
    answer_pump    the thread that passes on what the model answers; answer_events, what it passes on
    running_answers   an answer as it is written, or the best of several
    metrics        counters for Prometheus
    openapi, openapi_parts    the description of the interface
    page/          the page at /
"""
